// What is told to those who listen, to whom, and where one who was dropped goes on.
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "meta/parties.h"
#include "vault/change_feed.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

// One who listens, in a thread of his own.
class Listener {
  public:
    Listener(Site& site, const std::string& target, const std::string& token,
             const std::string& after = {}) {
        HttpClientOptions options;
        options.authority_pem = site.vault().authority_pem();
        options.bearer_token = Secret(as_bytes(token));
        client_ = std::make_unique<HttpClient>(options);
        HttpClientRequest request;
        request.url = "https://" + site.server->address() + target;
        if (!after.empty()) request.headers.push_back({"Last-Event-ID", after});
        request.on_data = [this](std::string_view text) {
            const std::lock_guard hold(mutex_);
            text_ += text;
            more_.notify_all();
            return !leaving_;
        };
        thread_ = std::thread([this, request] {
            auto answer = client_->request(request);
            const std::lock_guard hold(mutex_);
            status_ = answer ? answer->status : 0;
            ended_ = true;
            more_.notify_all();
        });
    }
    ~Listener() {
        client_->cancel();
        thread_.join();
    }
    // Waits until `what` has come; all that has come by then.
    std::string until(const std::string& what) {
        std::unique_lock hold(mutex_);
        more_.wait(hold, [&] { return ended_ || text_.find(what) != std::string::npos; });
        EXPECT_NE(text_.find(what), std::string::npos) << what << " did not come: " << text_;
        return text_;
    }
    // The same of something that time brings: `pass` is called again and again until then.
    void until(const std::string& what, const std::function<void()>& pass) {
        std::unique_lock hold(mutex_);
        while (!ended_ && text_.find(what) == std::string::npos) {
            pass();
            more_.wait_for(hold, std::chrono::milliseconds(20));
        }
        EXPECT_NE(text_.find(what), std::string::npos) << what << " did not come: " << text_;
    }
    int status() {
        std::unique_lock hold(mutex_);
        more_.wait(hold, [&] { return ended_; });
        return status_;
    }

  private:
    std::mutex mutex_;
    std::condition_variable more_;
    std::string text_;
    bool ended_ = false, leaving_ = false;
    int status_ = 0;
    std::unique_ptr<HttpClient> client_;
    std::thread thread_;
};

std::string admin(Site& site) { return std::string(as_text(site.vault().admin_token().reveal())); }

// Broken if events, items, jobs or alarms changed without a word, or a word came twice or to
// somebody who does not see the item.
TEST(ChangeFeed, TellsWhatChanges) {
    Site site;
    const std::string token =
        site.call("POST", "/v1/access-tokens", 201,
                  {{"name", "t"}, {"role", "reader"}, {"items", {"web"}}})["token"];
    site.call("POST", "/v1/items", 201, {{"name", "db"}, {"disks", {"/b"}}, {"wait_s", 0}});
    Listener all(site, "/v1/changes", admin(site));
    Listener some(site, "/v1/changes", token);
    all.until("event: hello");
    some.until("event: hello");
    ProtectedItem item(site);
    std::string told = all.until("\"code\":\"item-created\"");
    EXPECT_EQ(told.find("\"item\":\"db\""), std::string::npos) << "it was there before";
    told = all.until("event: item\ndata: {\"etag\"");
    all.until("\"state\":\"protected\"");
    some.until("\"state\":\"protected\"");
    site.call("POST", "/v1/items/db/scrub", 202);
    all.until("event: job");
    told = all.until("\"kind\":\"scrub\"");
    site.call("PATCH", "/v1/items/web", 200, {{"policy", {{"window_s", 900}}}});
    all.until("\"policy_name\":\"custom\"");
    told = some.until("\"policy_name\":\"custom\"");
    EXPECT_EQ(told.find("scrub"), std::string::npos) << told;
    EXPECT_EQ(told.find("\"db\""), std::string::npos) << told;
    // An alarm, as it comes.
    site.clock.us += 3600ll * 1'000'000;
    for (int i = 0; i < 3; ++i) {
        site.vault().tend();
        site.clock.us += 6'000'000;
    }
    all.until("event: alarm");
    some.until("\"code\":\"rpo-high\"");
    // Nothing happens: a sign of life. What was told late of the above counts as one, too.
    all.until("\n: \n", [&] { site.clock.us += kFeedHeartbeatUs; });
}

// Broken if one who comes back missed an event or got one twice, or what was forgotten were not
// said.
TEST(ChangeFeed, GoesOnWhereItWas) {
    Site site;
    const auto event = [&](int n) {
        site.vault().event(Severity::kInformation, "store-added", nullptr,
                           "number " + std::to_string(n) + ".");
    };
    for (int n = 0; n < 700; ++n) event(n);
    const uint64_t newest =
        site.call("GET", "/v1/events?limit=1", 200)["events"][0]["id"].get<uint64_t>();
    {
        Listener from(site, "/v1/changes", admin(site), std::to_string(newest - 600));
        const std::string told = from.until("number 699.");
        EXPECT_EQ(told.find("number 99."), std::string::npos);
        size_t at = 0;
        for (int n = 100; n < 700; ++n) {
            const std::string words = "number " + std::to_string(n) + ".";
            at = told.find(words, at);
            ASSERT_NE(at, std::string::npos) << words;
        }
        EXPECT_NE(told.find("id: " + std::to_string(newest)), std::string::npos);
        event(700);
        from.until("number 700.");
    }
    Listener future(site, "/v1/changes?after=" + std::to_string(newest + 1000), admin(site));
    future.until("event: lost");
    event(701);
    future.until("number 701.");
    EXPECT_EQ(site.refused("GET", "/v1/changes?after=x"), "invalid-argument");
    EXPECT_EQ(site.refused("GET", "/v1/changes?item=none"), "item-not-found");
}

// Broken if anybody could hold any number of streams, or one went on after its token was revoked.
TEST(ChangeFeed, IsBounded) {
    Site site;
    const Json made =
        site.call("POST", "/v1/access-tokens", 201, {{"name", "t"}, {"role", "reader"}});
    const std::string token = made["token"];
    std::vector<std::unique_ptr<Listener>> own;
    for (size_t i = 0; i < kMaxFeedReadersOfOne; ++i) {
        own.push_back(std::make_unique<Listener>(site, "/v1/changes", admin(site)));
        own.back()->until("event: hello");
    }
    EXPECT_EQ(site.refused("GET", "/v1/changes"), "throttled");
    Listener other(site, "/v1/changes", token);
    other.until("event: hello");
    site.call("DELETE", "/v1/access-tokens/" + made["id"].get<std::string>(), 204);
    site.clock.us += 11'000'000;
    EXPECT_EQ(other.status(), 200) << "its end, not its refusal";
    // The server's end does not wait for who listens.
    site.start();
    for (const auto& one : own) one->status();
}

}  // namespace
}  // namespace farshore
