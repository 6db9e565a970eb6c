#include <gmock/gmock.h>
#include <sys/stat.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "os/http_test_server.h"

namespace farshore {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(HttpTest, RequestsAndResponsesArriveWhole) {
    start(echo);
    client_options_.bearer_token = Secret(as_bytes("tok"));
    HttpClient client(client_options_);
    HttpClientRequest request;
    request.method = "POST";
    request.url = url("/a%20b/c?x=1%262&y=a+b&z");
    request.headers = {{"X-Twice", "one"}};
    request.body = std::string(3 << 20, 'b');
    auto response = client.request(request);
    ASSERT_TRUE(response) << response.error().to_string();
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->body, "POST /a b/c x=1&2 y=a b z=|tok||" + request.body);
    EXPECT_EQ(response->header("X-TWICE"), "one");
    EXPECT_EQ(get(client, "/missing")->status, 404);
    request.method = "HEAD";
    request.body.clear();
    EXPECT_EQ(client.request(request)->body, "");
    request.method = "DELETE";
    EXPECT_THAT(client.request(request)->body, StartsWith("DELETE"));
    EXPECT_EQ(get(client, "/bad%escape")->status, 400);
}

TEST_F(HttpTest, ACertificateNamesTheClientOnlyWhenItIsOfOurAuthority) {
    options_.client_authority_pem = authority_.certificate_pem();
    start(echo);
    HttpClient nobody(client_options_);
    EXPECT_EQ(get(nobody, "/")->body, "GET /|||");
    client_options_.credentials = credentials("agent-7");
    HttpClient named(client_options_);
    EXPECT_EQ(get(named, "/")->body, "GET /||agent-7|");
    auto foreign = CertificateAuthority::create("ca", RealClock().now()).value();
    IssueOptions issue;
    issue.common_name = "agent-7";
    issue.now = RealClock().now();
    client_options_.credentials = foreign.issue_with_key(issue).value();
    HttpClient pretender(client_options_);
    EXPECT_FALSE(get(pretender, "/"));
}

TEST_F(HttpTest, AServerOfAnotherAuthorityOrNameIsNotTrusted) {
    start(echo);
    auto foreign = CertificateAuthority::create("ca", RealClock().now()).value();
    client_options_.authority_pem = foreign.certificate_pem();
    HttpClient client(client_options_);
    EXPECT_EQ(code_of(get(client, "/")), Code::kUnauthenticated);
    client_options_.authority_pem = authority_.certificate_pem();
    IssueOptions issue;
    issue.common_name = "elsewhere";
    issue.now = RealClock().now();
    ASSERT_TRUE(server_->reload(authority_.issue_with_key(issue).value(), ""));
    HttpClient by_name(client_options_);
    EXPECT_EQ(code_of(get(by_name, "/")), Code::kUnauthenticated);
    client_options_.verify_host_name = false;
    HttpClient by_authority(client_options_);
    EXPECT_TRUE(get(by_authority, "/"));
}

TEST_F(HttpTest, FailuresOfTheClientHaveTheirCodes) {
    start([](const HttpRequest&) { return HttpResponse::text(std::string(100'000, 'x')); });
    client_options_.max_body_bytes = 99'999;
    HttpClient client(client_options_);
    EXPECT_EQ(code_of(get(client, "/")), Code::kTooLarge);
    HttpClientRequest request;
    request.url = "ftp://127.0.0.1/";
    EXPECT_EQ(code_of(client.request(request)), Code::kInvalidArgument);
    const std::string gone = url("/");
    server_.reset();
    request.url = gone;
    EXPECT_EQ(code_of(client.request(request)), Code::kUnavailable);
}

TEST_F(HttpTest, SixteenLongPollsDoNotHoldUpEachOther) {
    std::mutex mutex;
    std::condition_variable changed;
    unsigned waiting = 0;
    start([&](const HttpRequest& request) {
        std::unique_lock lock(mutex);
        ++waiting;
        changed.notify_all();
        changed.wait(lock, [&] { return waiting >= 16; });
        return echo(request);
    });
    HttpClient client(client_options_);
    std::vector<std::thread> threads;
    std::atomic<int> good = 0;
    for (int i = 0; i < 16; ++i)
        threads.emplace_back([&] { good += get(client, "/poll").has_value(); });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(good, 16);
}

TEST_F(HttpTest, TimeOutAndCancelEndARequest) {
    std::mutex mutex;
    std::condition_variable changed;
    bool leave = false;
    unsigned entered = 0;
    start([&](const HttpRequest& request) {
        std::unique_lock lock(mutex);
        ++entered;
        changed.notify_all();
        changed.wait(lock, [&] { return leave; });
        return echo(request);
    });
    HttpClient client(client_options_);
    HttpClientRequest request;
    request.url = url("/");
    request.timeout_us = 50'000;
    EXPECT_EQ(code_of(client.request(request)), Code::kTimeout);
    request.timeout_us = 0;
    // On a slow machine the first one may have ended before it reached the handler.
    unsigned before = 0;
    {
        std::lock_guard lock(mutex);
        before = entered;
    }
    std::thread canceller([&] {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return entered > before; });
        client.cancel();
    });
    EXPECT_EQ(code_of(client.request(request)), Code::kCancelled);
    canceller.join();
    {
        std::lock_guard lock(mutex);
        leave = true;
        changed.notify_all();
    }
    server_.reset();  // its handlers wait on what ends with this test
}

TEST_F(HttpTest, StopLetsARunningHandlerAnswer) {
    std::mutex mutex;
    std::condition_variable changed;
    bool entered = false, leave = false;
    start([&](const HttpRequest& request) {
        std::unique_lock lock(mutex);
        entered = true;
        changed.notify_all();
        changed.wait(lock, [&] { return leave; });
        return echo(request);
    });
    HttpClient client(client_options_);
    Result<HttpResponse> response = fail(Code::kInternal, "");
    std::thread asker([&] { response = get(client, "/last"); });
    {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return entered; });
    }
    std::thread stopper([&] { server_->stop(60'000'000); });
    {
        std::lock_guard lock(mutex);
        leave = true;
        changed.notify_all();
    }
    asker.join();
    stopper.join();
    ASSERT_TRUE(response) << response.error().to_string();
    EXPECT_EQ(response->body, "GET /last|||");
    EXPECT_FALSE(get(client, "/"));
}

TEST_F(HttpTest, AHandlerThatThrowsAnswers500AndTheServerGoesOn) {
    start([](const HttpRequest& request) -> HttpResponse {
        if (request.path == "/throw") throw std::runtime_error("oops");
        return echo(request);
    });
    HttpClient client(client_options_);
    EXPECT_EQ(get(client, "/throw")->status, 500);
    EXPECT_EQ(get(client, "/")->status, 200);
}

TEST_F(HttpUnixTest, TheClientReachesItAndTheSocketIsPrivate) {
    start(echo);
    struct stat info {};
    ASSERT_EQ(::stat(server_->address().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    client_options_.unix_socket_path = server_->address();
    HttpClient client(client_options_);
    HttpClientRequest request;
    request.url = "http://local/x";
    auto response = client.request(request);
    ASSERT_TRUE(response) << response.error().to_string();
    EXPECT_EQ(response->body, "GET /x|||");
    // A second server does not take the place of a living one, but that of a dead one.
    EXPECT_EQ(code_of(HttpServer::start(options_, echo)), Code::kAlreadyExists);
    server_.reset();
    EXPECT_EQ(code_of(client.request(request)), Code::kUnavailable);
    start(echo);
    EXPECT_TRUE(client.request(request));
}

TEST_F(HttpUnixTest, BadRequestsGetTheirStatusAndNothingElse) {
    start(echo);
    const auto status_of = [&](const std::string& request) {
        RawClient raw(server_->address());
        raw.send(request);
        return raw.read_to_end().substr(0, 12);
    };
    EXPECT_EQ(status_of("NONSENSE\r\n\r\n"), "HTTP/1.1 400");
    EXPECT_EQ(status_of(std::string(2000, '\xff') + "\r\n\r\n"), "HTTP/1.1 400");
    EXPECT_EQ(status_of("GET / HTTP/1.1\r\nX: " + std::string(8000, 'x') + "\r\n\r\n"),
              "HTTP/1.1 431");
    EXPECT_EQ(status_of("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n"),
              "HTTP/1.1 413");
    EXPECT_EQ(status_of("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "500\r\n" +
                        std::string(0x500, 'x') + "\r\n0\r\n\r\n"),
              "HTTP/1.1 413");
    EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "HTTP/1.1 200");
}

TEST_F(HttpUnixTest, PipelinedRequestsAndContinueWork) {
    start(echo);
    RawClient raw(server_->address());
    raw.send(
        "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
        "POST /3 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
        "Connection: close\r\n\r\nhi");
    const std::string all = raw.read_to_end();
    EXPECT_THAT(all, HasSubstr("GET /1|"));
    EXPECT_THAT(all, HasSubstr("GET /2|"));
    EXPECT_THAT(all, HasSubstr("100 Continue"));
    EXPECT_THAT(all, HasSubstr("POST /3|||hi"));
}

TEST(PercentTest, DecodesWhatItEncodes) {
    std::string all;
    for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
    EXPECT_EQ(percent_decode(percent_encode(all)).value(), all);
    for (const char* bad : {"%", "%1", "%zz", "a%4"}) EXPECT_FALSE(percent_decode(bad)) << bad;
    HttpRequest request;
    request.target = "http://h:1/p?a=b&&c#f";
    ASSERT_TRUE(split_target(request));
    EXPECT_EQ(request.path, "/p");
    EXPECT_EQ(request.query.size(), 2u);
}

// Broken if a clock's skew were measured wrongly, or a request were signed for another day.
TEST(HttpDate, IsWrittenAndReadAsTheRfcSays) {
    const TimePoint example = from_rfc3339("1994-11-15T08:12:31Z").value();
    EXPECT_EQ(to_http_date(example), "Tue, 15 Nov 1994 08:12:31 GMT");
    for (int64_t day = -1000; day < 40'000; day += 7) {
        const TimePoint time{day * 86'400'000'000 + 12'345'000'000};
        auto back = from_http_date(to_http_date(time));
        ASSERT_TRUE(back) << to_http_date(time);
        ASSERT_EQ(*back, time);
    }
    for (const char* wrong : {"", "Tue, 15 Nov 1994 08:12:31", "Tuesday, 15-Nov-94 08:12:31 GMT",
                              "Tue, 15 anF 1994 08:12:31 GMT", "Tue, xx Nov 1994 08:12:31 GMT"})
        EXPECT_FALSE(from_http_date(wrong)) << wrong;
}

}  // namespace
}  // namespace farshore
