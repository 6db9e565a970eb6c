#include "store/store_check.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>

#include "os/worker_pool.h"
#include "store/store_identity.h"

namespace farshore {
namespace {

constexpr size_t kRacers = 2;
constexpr int kRaces = 8;

class Check {
  public:
    Check(ObjectStore& store, Clock& clock, Random& random, const StoreCheckOptions& options)
        : store_(store), clock_(clock), random_(random), options_(options) {
        base_ = fmt::format("{}{:016x}/", kStoreCheckPrefix, random.next_u64());
    }

    StoreCheckReport run() {
        // What the rest stands on: without it nothing more can be said.
        if (write_and_read()) {
            write_once();
            race();
            ranges();
            listing();
            latency();
            throughput();
            deletion();
        }
        clean_up();
        for (StoreFinding& finding : store_.inspect())
            report_.findings.push_back(std::move(finding));
        return std::move(report_);
    }

  private:
    void add(StoreFinding::Result result, std::string subject, std::string what,
             std::string remedy = {}) {
        report_.findings.push_back(
            {result, std::move(subject), std::move(what), std::move(remedy)});
    }
    void ok(const char* subject, std::string what) {
        add(StoreFinding::Result::kOk, subject, std::move(what));
    }
    void refuse(const char* subject, std::string what, std::string remedy = {}) {
        add(StoreFinding::Result::kRefused, subject, std::move(what), std::move(remedy));
    }
    void refuse(const char* subject, const Error& error) {
        refuse(subject, error.to_string(), error.remedy());
    }
    std::string name(std::string_view rest) const { return base_ + std::string(rest); }
    Bytes content(size_t bytes) {
        Bytes out(bytes);
        random_.fill(out);
        return out;
    }
    // Kept for clean_up(), whatever becomes of it.
    Status put_object(const std::string& rest, ByteView data) {
        {
            const std::lock_guard lock(mutex_);
            put_.push_back(name(rest));
        }
        return store_.put(name(rest), data);
    }

    bool write_and_read() {
        const char* subject = "read after write";
        for (const size_t bytes : {0u, 1u, 100'000u, 3u << 20}) {
            const Bytes data = content(bytes);
            const std::string rest = fmt::format("rw/{}", bytes);
            if (const Status done = put_object(rest, data); !done) {
                refuse("write", done.error());
                return false;
            }
            auto back = store_.get(name(rest));
            if (!back) {
                refuse(subject, back.error());
                return false;
            }
            auto info = store_.head(name(rest));
            if (*back != data || !info || info->size_bytes != bytes) {
                refuse(subject, fmt::format("an object of {} bytes came back as another", bytes));
                return false;
            }
        }
        auto none = store_.get(name("never-put"));
        if (none || none.error().code() != Code::kNotFound) {
            refuse(subject, "an object that was never put is not said to be missing");
            return false;
        }
        ok(subject, "what was put is there at once, whole");
        return true;
    }

    void write_once() {
        const char* subject = "write once";
        const Bytes first = content(1000), second = content(1000);
        (void)put_object("once", first);
        const Status again = store_.put(name("once"), second);
        const auto kept = store_.get(name("once"));
        if (again || again.error().code() != Code::kAlreadyExists || !kept || *kept != first)
            refuse(subject, "an object was overwritten, or its overwriting not refused",
                   "use a store that obeys 'If-None-Match: *'");
        else
            ok(subject, "an object that is there is not overwritten");
    }

    void race() {
        const char* subject = "two writers";
        WorkerPool racers(kRacers - 1);
        for (int round = 0; round < kRaces; ++round) {
            const std::string rest = fmt::format("race/{}", round);
            Bytes data[kRacers];
            for (Bytes& one : data) one = content(20'000);
            std::atomic<int> winners{0};
            std::atomic<size_t> winner{0};
            std::atomic<bool> strange{false};
            racers.run(kRacers, [&](size_t who) {
                const Status done = put_object(rest, data[who]);
                if (done) {
                    ++winners;
                    winner = who;
                } else if (done.error().code() != Code::kAlreadyExists) {
                    strange = true;
                }
            });
            if (strange) continue;  // something else went wrong; the others will tell
            const auto kept = store_.get(name(rest));
            if (winners != 1 || !kept || *kept != data[winner])
                return refuse(subject,
                              fmt::format("{} of two writers of one name were told that they made "
                                          "it",
                                          winners.load()),
                              "names carry the epoch of their writer, so objects of the log stay "
                              "right; but two vaults may both believe that they own the store: let "
                              "only one be able to start");
        }
        ok(subject, "of two writers of one name, one makes it");
    }

    void ranges() {
        const char* subject = "ranges";
        const Bytes data = content(100'000);
        (void)put_object("range", data);
        const std::pair<uint64_t, uint64_t> cases[] = {{0, 100'000}, {17, 4096},    {99'990, 100},
                                                       {100'000, 5}, {1u << 25, 5}, {5, 0}};
        for (const auto& [offset, length] : cases) {
            const auto got = store_.get_range(name("range"), offset, length);
            const uint64_t from = std::min<uint64_t>(offset, data.size());
            const uint64_t n = std::min<uint64_t>(length, data.size() - from);
            if (!got) return refuse(subject, got.error());
            if (!std::ranges::equal(*got, ByteView(data).subspan(from, n)))
                return refuse(subject, fmt::format("range {}+{} came wrong", offset, length));
        }
        ok(subject, "parts of objects can be read, cut at the end");
    }

    void listing() {
        const char* subject = "listing";
        // '-' and '.' stand before '/', digits behind: the order of bytes, not of words.
        std::vector<std::string> rests = {"list/a-b",  "list/a.b", "list/a/0", "list/a/1",
                                          "list/a/10", "list/a/2", "list/a0",  "list/b"};
        for (const std::string& rest : rests)
            if (const Status done = put_object(rest, as_bytes(rest)); !done)
                return refuse(subject, done.error());
        std::vector<std::string> expected;
        for (const std::string& rest : rests) expected.push_back(name(rest));
        std::ranges::sort(expected);
        for (const size_t page : {1000u, 3u}) {
            std::vector<std::string> found;
            for (std::string after;;) {
                auto listed = store_.list(name("list/"), after, page);
                if (!listed) return refuse(subject, listed.error());
                for (const ObjectInfo& info : *listed) found.push_back(info.name);
                if (listed->size() < page) break;
                after = found.back();
            }
            if (found != expected)
                return refuse(subject,
                              fmt::format("{} of {} objects are listed, or not in the order of "
                                          "their bytes",
                                          found.size(), expected.size()),
                              "use a store whose listings are complete at once and sorted");
        }
        ok(subject, "complete at once, in the order of bytes");
    }

    static int64_t percentile(std::vector<int64_t>& values, size_t percent) {
        std::ranges::sort(values);
        return values[std::min(values.size() - 1, values.size() * percent / 100)];
    }

    void latency() {
        std::vector<int64_t> puts, gets;
        for (int i = 0; i < options_.small_puts; ++i) {
            const Bytes data = content(4096);
            const std::string rest = fmt::format("small/{}", i);
            int64_t start_us = clock_.steady_us();
            if (const Status done = put_object(rest, data); !done)
                return refuse("latency", done.error());
            puts.push_back(clock_.steady_us() - start_us);
            start_us = clock_.steady_us();
            if (auto got = store_.get(name(rest)); !got) return refuse("latency", got.error());
            gets.push_back(clock_.steady_us() - start_us);
        }
        if (puts.empty()) return;
        report_.put_p50_us = percentile(puts, 50);
        report_.put_p99_us = percentile(puts, 99);
        report_.get_p50_us = percentile(gets, 50);
        report_.get_p99_us = percentile(gets, 99);
        const auto ms = [](int64_t us) { return static_cast<double>(us) / 1000; };
        ok("latency", fmt::format("4 KiB: put {:.1f} ms (p99 {:.1f}), get {:.1f} ms (p99 {:.1f})",
                                  ms(*report_.put_p50_us), ms(*report_.put_p99_us),
                                  ms(*report_.get_p50_us), ms(*report_.get_p99_us)));
    }

    void throughput() {
        if (options_.large_objects == 0) return;
        const Bytes data = content(options_.large_bytes);
        WorkerPool workers(options_.parallel - 1);
        std::optional<Error> failed;
        const auto all = [&](const std::function<Status(const std::string&)>& one) {
            const int64_t start_us = clock_.steady_us();
            workers.run(options_.large_objects, [&](size_t i) {
                Status done = one(fmt::format("large/{}", i));
                const std::lock_guard lock(mutex_);
                if (!done && !failed) failed = done.error();
            });
            const int64_t took_us = std::max<int64_t>(clock_.steady_us() - start_us, 1);
            return options_.large_objects * options_.large_bytes * 1'000'000 /
                   static_cast<uint64_t>(took_us);
        };
        const uint64_t put_rate =
            all([&](const std::string& rest) { return put_object(rest, data); });
        if (failed) return refuse("throughput", *failed);
        const uint64_t get_rate = all([&](const std::string& rest) -> Status {
            FS_ASSIGN(const Bytes got, store_.get(name(rest)));
            if (got != data) return fail(Code::kCorrupt, "a large object came back as another");
            return {};
        });
        if (failed) return refuse("throughput", *failed);
        report_.put_bytes_per_s = put_rate;
        report_.get_bytes_per_s = get_rate;
        ok("throughput", fmt::format("{} MiB objects, {} at a time: put {} MB/s, get {} MB/s",
                                     options_.large_bytes >> 20, options_.parallel,
                                     put_rate / 1'000'000, get_rate / 1'000'000));
    }

    void deletion() {
        const char* subject = "delete";
        const Status removed = store_.remove(name("once"));
        if (!removed) return refuse(subject, removed.error());
        if (store_.lock_us() != 0) {
            if (auto kept = store_.get(name("once")); !kept) return refuse(subject, kept.error());
            return ok(subject, "refused while an object is locked");
        }
        const auto gone = store_.head(name("once"));
        auto listed = store_.list(name("once"), "", 10);
        if (gone || gone.error().code() != Code::kNotFound || !listed || !listed->empty())
            return refuse(subject, "an object that was deleted can still be read or is listed");
        if (const Status again = store_.remove(name("once")); !again)
            return refuse(subject, again.error());
        ok(subject, "what is deleted is gone at once");
    }

    void clean_up() {
        std::ranges::sort(put_);
        put_.erase(std::ranges::unique(put_).begin(), put_.end());
        size_t left = 0;
        for (const std::string& one : put_) {
            if (const Status removed = store_.remove(one); !removed) ++left;
        }
        if (store_.lock_us() != 0)
            add(StoreFinding::Result::kNote, "clean-up",
                fmt::format("{} objects of this check stay below '{}' until their locks end",
                            put_.size(), base_));
        else if (left != 0)
            add(StoreFinding::Result::kWarning, "clean-up",
                fmt::format("{} objects of this check could not be removed below '{}'", left,
                            base_));
    }

    ObjectStore& store_;
    Clock& clock_;
    Random& random_;
    const StoreCheckOptions& options_;
    std::string base_;
    std::mutex mutex_;
    std::vector<std::string> put_;  // names, below mutex_
    StoreCheckReport report_;
};

}  // namespace

bool StoreCheckReport::fit() const {
    return std::ranges::none_of(findings, [](const StoreFinding& finding) {
        return finding.result == StoreFinding::Result::kRefused;
    });
}

StoreCheckReport check_store(ObjectStore& store, Clock& clock, Random& random,
                             const StoreCheckOptions& options) {
    return Check(store, clock, random, options).run();
}

}  // namespace farshore
