// Plans for the sizes that a node has met. With a static shape there is one, made when the session is created; with a
// dynamic shape each size is packed when it is met first.
#ifndef GOSSAMER_ORT_PLAN_CACHE_H_
#define GOSSAMER_ORT_PLAN_CACHE_H_

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <utility>

namespace gossamer {

template <class Plan>
class PlanCache {
 public:
  using Key = std::pair<int64_t, int64_t>;

  // The plan for `key`, made by make() where there is none yet. Several sessions' threads may ask at once.
  template <class Make>
  std::shared_ptr<const Plan> Get(const Key& key, const Make& make) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
      if (entry->first != key) continue;
      entries_.splice(entries_.begin(), entries_, entry);
      return entry->second;
    }
    std::shared_ptr<const Plan> plan = make();
    entries_.emplace_front(key, plan);
    if (entries_.size() > kMostPlans) entries_.pop_back();
    return plan;
  }

 private:
  // A plan takes about 6 bytes a nonzero; the least recently used one is dropped.
  static constexpr size_t kMostPlans = 8;
  std::mutex mutex_;
  std::list<std::pair<Key, std::shared_ptr<const Plan>>> entries_;
};

}  // namespace gossamer

#endif  // GOSSAMER_ORT_PLAN_CACHE_H_
