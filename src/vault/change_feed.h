// Server-sent events (the HTML standard's section 9.2): what changes, to everybody who listens.
// docs/operations/api.md names the messages.
//
// One thread looks at the database a few times a second while somebody listens, and at nothing
// while nobody does. A reader holds no thread. One that takes too little is dropped by its
// connection (os/http.h) and resumes from the event log with Last-Event-ID. Any thread may call.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/secret.h"
#include "os/http.h"
#include "vault/access_desk.h"

namespace farshore {

class Vault;

inline constexpr size_t kMaxFeedReaders = 64;
inline constexpr size_t kMaxFeedReadersOfOne = 8;
inline constexpr int64_t kFeedHeartbeatUs = 15'000'000;

struct FeedWish {
    Identity who;
    Secret bearer;  // asked again from time to time whether it is still good
    std::optional<uint64_t>
        after;         // an event's id to go on from; none: only what comes from now on
    std::string item;  // the id of one item; empty: all
};

class ChangeFeed {
  public:
    // Borrows both.
    ChangeFeed(Vault& vault, AccessDesk& access);
    ~ChangeFeed();

    // An answer that goes on. kThrottled (the caller has kMaxFeedReadersOfOne), kLimitReached.
    Result<HttpResponse> open(FeedWish wish);

  private:
    struct Reader;
    struct Known;
    void run();
    void round(std::vector<std::shared_ptr<Reader>>& readers);
    bool tell_events(Reader& reader, uint64_t newest);
    bool look_again(Reader& reader);
    void find_changes(std::vector<std::shared_ptr<Reader>>& readers);

    Vault& vault_;
    AccessDesk& access_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::shared_ptr<Reader>> readers_;  // guarded by mutex_
    bool ending_ = false;                           // guarded by mutex_
    std::thread thread_;                            // begun by the first reader
    std::unique_ptr<Known> known_;                  // of the thread alone; null: nobody listens
};

}  // namespace farshore
