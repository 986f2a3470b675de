#include "kernels/lanes_of_floats.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/lanes_of_floats.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "hwy/highway.h"
#include "kernels/copy-inl.h"
#include "kernels/quantised_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gossamer {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Quantised of each lane, as a panel's byte.
HWY_INLINE ByteVector BytesOfFloats(const Quantisation& q, hn::Vec<FloatTag> values) {
  const FloatTag df;
  const ByteTag d;
  const auto rounding = hn::Set(df, 12582912.0f);  // 1.5 * 2^23: adding it rounds
  const auto low = hn::Set(df, static_cast<float>(-q.zero_point));
  const auto high = hn::Set(df, static_cast<float>(255 - q.zero_point));
  const auto scaled = hn::Div(values, hn::Set(df, q.scale));
  // What is not a number is not greater.
  const auto within = hn::IfThenElse(hn::Gt(scaled, low), hn::Min(scaled, high), low);
  const auto steps = hn::ConvertTo(d, hn::Sub(hn::Add(within, rounding), rounding));
  return hn::And(hn::Add(steps, hn::Set(d, q.zero_point - kPanelOffset)), hn::Set(d, 255));
}

void LanesHere(const FloatPlanes& planes, const Quantisation& q, int64_t count, int32_t* lanes) {
  const FloatTag df;
  const ByteTag d;
  const auto nothing = hn::Set(d, PanelLaneOf(q.zero_point) & 255);
  const auto lanes_at = [&](const auto& load) HWY_ATTR {
    const auto bytes = [&](size_t c) HWY_ATTR {
      return planes[c] == nullptr ? nothing : BytesOfFloats(q, load(planes[c]));
    };
    return hn::Or(hn::Or(bytes(0), hn::ShiftLeft<8>(bytes(1))),
                  hn::Or(hn::ShiftLeft<16>(bytes(2)), hn::ShiftLeft<24>(bytes(3))));
  };
  ForEachVector(
      count,
      [&](int64_t i) HWY_ATTR {
        hn::StoreU(lanes_at([&](const float* plane) HWY_ATTR { return hn::LoadU(df, plane + i); }), d, lanes + i);
      },
      [&](int64_t i, size_t rest) HWY_ATTR {
        hn::StoreN(lanes_at([&](const float* plane) HWY_ATTR { return hn::LoadN(df, plane + i, rest); }), d, lanes + i,
                   rest);
      });
}

}  // namespace HWY_NAMESPACE
}  // namespace gossamer
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gossamer {

HWY_EXPORT(LanesHere);

void LanesOfFloats(const FloatPlanes& planes, const Quantisation& q, int64_t count, int32_t* lanes) {
  HWY_DYNAMIC_DISPATCH(LanesHere)(planes, q, count, lanes);
}

}  // namespace gossamer
#endif  // HWY_ONCE
