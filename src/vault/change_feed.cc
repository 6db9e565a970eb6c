#include "vault/change_feed.h"

#include <fmt/core.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "meta/alarms.h"
#include "meta/jobs.h"
#include "meta/json_fields.h"
#include "meta/parties.h"
#include "os/log.h"
#include "vault/tags.h"
#include "vault/vault.h"
#include "vault/views.h"

namespace farshore {
namespace {

constexpr auto kRound = std::chrono::milliseconds(300);
constexpr int64_t kLookAgainUs = 10'000'000;
// Reports of many items cost: at most a tenth of the time is spent on them.
constexpr int64_t kItemsCostFactor = 10;
constexpr size_t kEventPage = 200;
constexpr size_t kItemPage = 500;
constexpr size_t kJobPage = 100;
constexpr size_t kAlarmPage = 1000;
// Of what a connection lets wait (os/http.h) the log takes half: what changes now has room.
constexpr size_t kLogWaitsBytes = 128u << 10;

std::string message(const char* kind, const Json& data) {
    return fmt::format("event: {}\ndata: {}\n\n", kind, dump_json(data));
}

std::string reader_name(const Identity& who) {
    return fmt::format("{} {}", identity_kind_name(who.kind), who.name);
}

// What is told of one thing, and to whom.
struct Told {
    const char* kind;
    Json view;
    std::optional<ItemId> item;
    std::string item_name;
};

}  // namespace

struct ChangeFeed::Reader {
    FeedWish wish;
    std::string name;  // whose it is
    std::atomic<bool> counted{true};
    std::mutex mutex;
    std::shared_ptr<HttpStream> stream;  // guarded by mutex; null until its header is on its way
    // Of the feed's thread alone.
    bool greeted = false;
    uint64_t cursor = 0;
    int64_t heard_us = 0, looked_us = 0;

    bool sees(const std::optional<ItemId>& item, const std::string& item_name) const {
        if (!wish.item.empty() && (!item || item->to_string() != wish.item)) return false;
        if (wish.who.scope.all) return true;
        return item && wish.who.may_see(item_name, item->to_string());
    }
    std::shared_ptr<HttpStream> target() {
        const std::lock_guard hold(mutex);
        return stream;
    }
};

// As it was told last.
struct ChangeFeed::Known {
    struct Item {
        std::string name, view;
    };
    std::map<std::string, Item> items;     // by id
    std::map<uint64_t, std::string> jobs;  // that are open
    std::map<uint64_t, std::string> alarms;
    uint64_t newest_job = 0;
    int64_t items_due_us = 0;
    bool is_new = true;
    log::Limit warnings;
};

ChangeFeed::ChangeFeed(Vault& vault, AccessDesk& access) : vault_(vault), access_(access) {}

ChangeFeed::~ChangeFeed() {
    {
        const std::lock_guard hold(mutex_);
        ending_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
    for (const auto& reader : readers_)
        if (const auto stream = reader->target()) stream->end();
}

Result<HttpResponse> ChangeFeed::open(FeedWish wish) {
    auto reader = std::make_shared<Reader>();
    uint64_t newest = 0;
    FS_ASSIGN(const auto rows, list_events(vault_.database(), 0, 1));
    if (!rows.empty()) newest = rows.front().id;
    reader->cursor = wish.after.value_or(newest);
    reader->name = reader_name(wish.who);
    reader->wish = std::move(wish);
    reader->heard_us = reader->looked_us = vault_.clock().steady_us();
    {
        const std::lock_guard hold(mutex_);
        const auto own = static_cast<size_t>(std::ranges::count_if(
            readers_, [&](const auto& one) { return one->counted && one->name == reader->name; }));
        if (own >= kMaxFeedReadersOfOne)
            return fail(Code::kThrottled, fmt::format("you listen to {} streams already", own),
                        "end one of them first");
        if (readers_.size() >= kMaxFeedReaders)
            return fail(
                Code::kLimitReached,
                fmt::format("{} streams are listened to, which is the limit", readers_.size()),
                "try again, or ask for /v1/events from time to time");
        readers_.push_back(reader);
        if (!thread_.joinable())
            thread_ = std::thread([this] {
                pthread_setname_np(pthread_self(), "change-feed");
                run();
            });
    }
    HttpResponse response;
    response.headers = {{"Content-Type", "text/event-stream"}, {"Cache-Control", "no-store"}};
    // One whose connection ends before its header is on its way is let go, too.
    struct Claim {
        explicit Claim(std::shared_ptr<Reader> of) : reader(std::move(of)) {}
        ~Claim() {
            if (!reader->target()) reader->counted = false;
        }
        std::shared_ptr<Reader> reader;
    };
    response.stream = [claim =
                           std::make_shared<Claim>(reader)](std::shared_ptr<HttpStream> stream) {
        const std::lock_guard hold(claim->reader->mutex);
        claim->reader->stream = std::move(stream);
    };
    return response;
}

void ChangeFeed::run() {
    std::unique_lock hold(mutex_);
    while (!ending_) {
        if (readers_.empty()) {
            known_.reset();
            wake_.wait_for(hold, kRound);
            continue;
        }
        auto readers = readers_;
        hold.unlock();
        round(readers);
        hold.lock();
        std::erase_if(readers_, [&](const auto& one) { return !one->counted; });
        if (!ending_) wake_.wait_for(hold, kRound);
    }
}

// False: it is to be let go.
bool ChangeFeed::look_again(Reader& reader) {
    const int64_t now_us = vault_.clock().steady_us();
    if (now_us - reader.looked_us < kLookAgainUs) return true;
    reader.looked_us = now_us;
    std::string detail;
    const auto who = access_.identify(std::string(as_text(reader.wish.bearer.reveal())), detail);
    if (!who) return who.error().retry() != Retry::kNever;
    reader.wish.who = *who;
    return true;
}

// False: its connection has ended.
bool ChangeFeed::tell_events(Reader& reader, uint64_t newest) {
    const auto stream = reader.target();
    while (reader.cursor < newest && stream->waiting_bytes() < kLogWaitsBytes) {
        const auto rows = list_events_after(vault_.database(), reader.cursor, kEventPage);
        if (!rows) {
            known_->warnings.warn("feed", "events cannot be read: {}", rows.error().to_string());
            return true;
        }
        if (rows->empty()) {
            reader.cursor = newest;
            return true;
        }
        std::string text;
        bool last_seen = false;
        for (const EventRecord& row : *rows) {
            reader.cursor = row.id;
            last_seen = reader.sees(row.item, row.item_name);
            if (last_seen)
                text += fmt::format("id: {}\n{}", row.id, message("event", event_view(row)));
        }
        // Where to go on, without an event.
        if (!last_seen) text += fmt::format("id: {}\n\n", reader.cursor);
        reader.heard_us = vault_.clock().steady_us();
        if (!stream->send(std::move(text))) return false;
    }
    return true;
}

void ChangeFeed::round(std::vector<std::shared_ptr<Reader>>& readers) {
    const bool was_new = known_ == nullptr;
    if (was_new) known_ = std::make_unique<Known>();
    find_changes(readers);
    uint64_t newest = 0, oldest = 0;
    if (const auto rows = list_events(vault_.database(), 0, 1); rows && !rows->empty())
        newest = rows->front().id;
    for (const auto& one : readers) {
        Reader& reader = *one;
        const auto stream = reader.target();
        if (!stream) continue;         // its header is not on its way yet
        bool good = stream->send({});  // whether it is still there
        if (good && !look_again(reader)) {
            stream->end();
            good = false;
        }
        if (good && !reader.greeted) {
            reader.greeted = true;
            std::string text = message("hello", {{"newest_event", newest}});
            if (const auto rows = list_events_after(vault_.database(), 0, 1);
                rows && !rows->empty())
                oldest = rows->front().id;
            // Forgotten since, or of another database.
            if (reader.cursor + 1 < oldest || reader.cursor > newest) {
                text += message("lost", {{"after", reader.cursor}, {"oldest_event", oldest}});
                reader.cursor = reader.cursor > newest ? newest : oldest - 1;
            }
            good = stream->send(std::move(text));
        }
        good = good && tell_events(reader, newest);
        const int64_t now_us = vault_.clock().steady_us();
        if (good && now_us - reader.heard_us >= kFeedHeartbeatUs) {
            reader.heard_us = now_us;
            good = stream->send(": \n\n");
        }
        if (!good) reader.counted = false;
    }
}

void ChangeFeed::find_changes(std::vector<std::shared_ptr<Reader>>& readers) {
    Known& known = *known_;
    Database& database = vault_.database();
    std::vector<Told> told;
    const auto note = [&](const char* kind, Json view, const std::optional<ItemId>& item,
                          const std::string& item_name) {
        if (!known.is_new) told.push_back({kind, std::move(view), item, item_name});
    };
    // Jobs: those that are open, those that were, and those that came and went in between.
    const auto look_at_jobs = [&]() -> Status {
        FS_ASSIGN(const auto open, open_jobs(database));
        std::map<uint64_t, std::string> now;
        uint64_t newest = known.newest_job;
        const auto tell = [&](const JobRecord& job) {
            newest = std::max(newest, job.id);
            Json view = job_view(job);
            std::string text = dump_json(view);
            const auto before = known.jobs.find(job.id);
            const bool same = before != known.jobs.end() && before->second == text;
            if (!job.over()) now[job.id] = text;
            if (!same) note("job", std::move(view), job.item, job.item_name);
        };
        for (const JobRecord& job : open) tell(job);
        for (const auto& [id, text] : known.jobs)
            if (!now.contains(id))
                if (const auto job = get_job(database, id)) tell(*job);
        FS_ASSIGN(const auto last, list_jobs(database, 0, kJobPage));
        for (const JobRecord& job : last)
            if (job.id > known.newest_job && job.over()) tell(job);
        known.jobs = std::move(now);
        known.newest_job = newest;
        return {};
    };
    const auto look_at_alarms = [&]() -> Status {
        std::map<uint64_t, std::string> now;
        const auto tell = [&](const AlarmRecord& alarm) {
            Json view = alarm_view(alarm);
            std::string text = dump_json(view);
            const auto before = known.alarms.find(alarm.id);
            const bool same = before != known.alarms.end() && before->second == text;
            if (alarm.cleared.us == 0) now[alarm.id] = text;
            if (!same) note("alarm", std::move(view), alarm.item, alarm.item_name);
        };
        for (uint64_t before = 0;;) {
            FS_ASSIGN(const auto page, list_alarms(database, true, before, kAlarmPage));
            for (const AlarmRecord& alarm : page) tell(alarm);
            if (page.size() < kAlarmPage) break;
            before = page.back().id;
        }
        for (const auto& [id, text] : known.alarms)
            if (!now.contains(id))
                if (const auto alarm = get_alarm(database, id)) tell(*alarm);
        known.alarms = std::move(now);
        return {};
    };
    const auto look_at_items = [&]() -> Status {
        std::map<std::string, Known::Item> now;
        for (std::string after;;) {
            FS_ASSIGN(const auto page, vault_.items(after, kItemPage));
            for (const ItemReport& report : page) {
                const ItemRecord& item = report.record;
                const std::string id = item.id.to_string();
                Json view{{"id", id},
                          {"name", item.name},
                          {"state", std::string(item_state_name(item.state))},
                          {"health", std::string(health_name(report.troubles))},
                          {"policy_name", item.policy_name.empty() ? "custom" : item.policy_name},
                          {"etag", tag_of(item)}};
                std::string text = dump_json(view);
                const auto before = known.items.find(id);
                if (before == known.items.end() || before->second.view != text)
                    note("item", std::move(view), item.id, item.name);
                now[id] = {item.name, std::move(text)};
            }
            if (page.size() < kItemPage) break;
            after = page.back().record.name;
        }
        for (const auto& [id, before] : known.items)
            if (!now.contains(id))
                note("item", {{"id", id}, {"name", before.name}, {"gone", true}},
                     *ItemId::parse(id), before.name);
        known.items = std::move(now);
        return {};
    };
    Status looked = look_at_jobs();
    if (looked) looked = look_at_alarms();
    if (const int64_t begun_us = vault_.clock().steady_us();
        looked && begun_us >= known.items_due_us) {
        looked = look_at_items();
        const int64_t now_us = vault_.clock().steady_us();
        known.items_due_us = now_us + (now_us - begun_us) * kItemsCostFactor;
    }
    if (!looked) {
        known.warnings.warn("feed", "what changes cannot be read: {}", looked.error().to_string());
        return;
    }
    known.is_new = false;
    for (const Told& one : told) {
        const std::string text = message(one.kind, one.view);
        for (const auto& reader : readers) {
            if (!reader->counted || !reader->greeted || !reader->sees(one.item, one.item_name))
                continue;
            if (!reader->target()->send(text)) reader->counted = false;
        }
    }
}

}  // namespace farshore
