// What an item's replica has, for its agent that compares it with the source: readers that stay
// open while a comparison runs.
#include <fmt/core.h>

#include <utility>

#include "replica/replica_compare.h"
#include "vault/log_about.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

// No lease holds what is read: a state inside a gap cannot have one. What is dead stays for its
// grace (RetentionPolicy::grace_us), twice as long as a reader is used.
constexpr int64_t kReaderLifeUs = 300'000'000;
constexpr size_t kReaderCacheBytes = 16u << 20;

}  // namespace

// The item's state after `at_least` or later. Null: that is not stored yet.
Result<std::shared_ptr<ReplicaReader>> Vault::Impl::compare_reader(ItemRuntime& item,
                                                                   Sequence at_least) {
    const std::lock_guard hold(item.compare_mutex);
    const int64_t now_us = clock.steady_us();
    item.compare_used_us = now_us;
    if (item.compare_reader && item.compare_reader->sequence() >= at_least &&
        now_us - item.compare_opened_us < kReaderLifeUs)
        return item.compare_reader;
    FS_ASSIGN(const ReplicaStatus status, item.replica->status());
    if (status.stored < at_least) return std::shared_ptr<ReplicaReader>();
    ReplicaReaderOptions reading;
    reading.cache_bytes = kReaderCacheBytes;
    reading.allow_gap = true;
    FS_ASSIGN(item.compare_reader,
              ReplicaReader::open(*store, item.id, item.key, status.stored, std::move(reading)));
    item.compare_opened_us = now_us;
    item.compare_damage_told = false;
    return item.compare_reader;
}

void Vault::Impl::forget_compare_reader(ItemRuntime& item, int64_t unused_us) {
    const std::lock_guard hold(item.compare_mutex);
    if (clock.steady_us() - item.compare_used_us >= unused_us) item.compare_reader.reset();
}

Result<CompareAnswer> Vault::compare(const std::string& agent, const ItemId& id,
                                     const CompareQuestion& question) {
    FS_ASSIGN(const ItemRecord record, get_item(*impl_->database, id));
    const auto way = impl_->way_home(id);
    if (record.agent != agent && way && way->agent == agent && is_returning(record.state)) {
        FS_ASSIGN(const std::shared_ptr<ItemRuntime> returning, impl_->runtime(id));
        return impl_->compare_for_home(*returning, *way, question);
    }
    if (record.agent != agent)
        return fail(Code::kForbidden, fmt::format("'{}' is replicated by agent '{}', not by '{}'",
                                                  record.name, record.agent, agent));
    FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, impl_->runtime(id));
    CompareAnswer answer;
    const auto failed_with = [&](std::optional<Error> error) {
        const std::lock_guard hold(item->mutex);
        item->compare_error = std::move(error);
    };
    auto reader = impl_->compare_reader(*item, question.at_least);
    if (!reader) {
        // What cannot be opened cannot be compared with: the source sends everything.
        log::warn("vault", about(record, reader.error()), "'{}' is not compared: {}", record.name,
                  reader.error().to_string());
        failed_with(reader.error());
        if (reader.error().retry() != Retry::kNever) return fail(reader.error());
        answer.verdict = CompareVerdict::kNothing;
        return answer;
    }
    if (!*reader) {
        answer.verdict = CompareVerdict::kNotYet;
        return answer;
    }
    auto compared = compare_replica(**reader, question);
    if (!compared) {
        impl_->forget_compare_reader(*item);
        failed_with(compared.error());
        return compared;
    }
    failed_with(std::nullopt);
    if (compared->unreadable != 0) {
        log::warn("vault", about(record), "'{}': {} blocks of disk {} at {} cannot be read",
                  record.name, compared->unreadable, question.disk, question.offset_bytes);
        // A lost object is in many answers; one event is enough.
        const std::lock_guard hold(item->compare_mutex);
        if (!std::exchange(item->compare_damage_told, true))
            event(Severity::kWarning, "replica-damaged", &record,
                  fmt::format("disk {} could not be read from the store everywhere while it was "
                              "compared, first {} KiB at {}; the source sends that again",
                              question.disk, compared->unreadable * (kSumBlockBytes >> 10),
                              question.offset_bytes),
                  "points from before this resynchronisation may have lost it: look at the store's "
                  "disks");
    }
    return compared;
}

}  // namespace farshore
