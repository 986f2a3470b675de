// The library's one exported symbol.
#include <sched.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "ort/op.h"
#include "ort/panel_max_pool.h"
#include "ort/panel_ops.h"
#include "ort/peak_op.h"
#include "ort/quantised_conv.h"
#include "ort/quantised_matmul.h"
#include "ort/quantised_panel_ops.h"
#include "ort/quantised_pool.h"
#include "ort/quantised_reshape.h"
#include "ort/sparse_conv.h"
#include "ort/sparse_matmul.h"
#include "ort/stem_conv.h"

namespace gossamer {
namespace {

constexpr const char* kDomain = "gossamer";
// ONNX Runtime does not tell an op how many threads its session has; gossamer_runtime.Session sets this entry.
constexpr const char* kThreadsEntry = "gossamer.threads";
constexpr int64_t kMostThreads = 256;

int64_t AvailableProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

int64_t ThreadsOf(OrtSessionOptions* options) {
  Ort::ConstSessionOptions wrapped(options);
  const std::string entry = wrapped.GetConfigEntryOrDefault(kThreadsEntry, "");
  if (entry.empty()) return std::min(AvailableProcessors(), kMostThreads);
  char* end = nullptr;
  const long threads = std::strtol(entry.c_str(), &end, 10);
  if (*end != '\0' || threads < 0) Fail("the session's entry gossamer.threads is not a number: " + entry);
  if (threads == 0) return std::min(AvailableProcessors(), kMostThreads);
  return std::min<int64_t>(threads, kMostThreads);
}

// The ops of one session options object. ONNX Runtime keeps pointers to them for as long as any session lives, and never
// says when that ends, so they are kept until the process does: a few hundred bytes a session.
template <class... Ops>
struct OpsFor {
  std::tuple<Ops...> ops;
  Ort::CustomOpDomain domain{kDomain};

  explicit OpsFor(int64_t threads) : ops(Ops(threads)...) {
    std::apply([this](auto&... op) { (domain.Add(&op), ...); }, ops);
  }
};
using OpSet = OpsFor<ToPanelOp, FromPanelOp, PanelMaxPoolOp, SparseConvOp, SparseMatMulOp, StemConvOp, PeakOp,
                     QuantisedToPanelOp, QuantisedFromPanelOp, DequantisedFromPanelOp, QuantisedConvOp,
                     QuantisedMatMulOp, DynamicMatMulOp, DequantisedMatMulOp, QuantisedMaxPoolOp,
                     QuantisedAveragePoolOp, QuantisedConcatOp, QuantisedResizeOp>;

// Before 1.24, ONNX Runtime reads through a null pointer, before it asks an op for its shapes, where a node leaves out an
// optional input and names a later one ("" for the bias and then a residual). Any model file could end the process so.
constexpr uint32_t kOldestApi = 24;

OpSet& NewOpSet(int64_t threads) {
  static std::mutex mutex;
  static auto* const kept = new std::vector<std::unique_ptr<OpSet>>();
  const std::lock_guard<std::mutex> lock(mutex);
  kept->push_back(std::make_unique<OpSet>(threads));
  return *kept->back();
}

}  // namespace
}  // namespace gossamer

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                             const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  // Without a function table there is no way to make a status; ONNX Runtime older than the headers prints why itself.
  if (api == nullptr) return nullptr;
  Ort::InitApi(api);
  return gossamer::Guarded([&] {
    if (base->GetApi(gossamer::kOldestApi) == nullptr) {
      gossamer::Fail(std::string("expected ONNX Runtime 1.24 or newer, got ") + base->GetVersionString() +
                     ", which crashes on models that leave out an optional input; pip install --upgrade onnxruntime");
    }
    gossamer::OpSet& ops = gossamer::NewOpSet(gossamer::ThreadsOf(options));
    Ort::UnownedSessionOptions(options).Add(ops.domain);
  });
}
