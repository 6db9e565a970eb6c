// Answers that are streams, and clients that hold up a server: slow ones, too many, too large.
#include <gmock/gmock.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "os/http_test_server.h"

namespace farshore {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// Hands the newest stream that a handler has begun to the test.
class Streams {
  public:
    HttpResponse answer() {
        HttpResponse response = HttpResponse::text("");
        response.stream = [this](std::shared_ptr<HttpStream> stream) {
            const std::lock_guard hold(mutex_);
            newest_ = std::move(stream);
            begun_.notify_all();
        };
        return response;
    }
    std::shared_ptr<HttpStream> next() {
        std::unique_lock hold(mutex_);
        begun_.wait(hold, [&] { return newest_ != nullptr; });
        return std::exchange(newest_, nullptr);
    }

  private:
    std::mutex mutex_;
    std::condition_variable begun_;
    std::shared_ptr<HttpStream> newest_;
};

// Broken if a stream held a worker, lost or reordered what was sent, or did not end.
TEST_F(HttpTest, StreamsArriveInOrderAndHoldNoWorker) {
    options_.workers = 1;
    Streams streams;
    start([&](const HttpRequest& request) {
        return request.path == "/stream" ? streams.answer() : echo(request);
    });
    HttpClient client(client_options_);
    std::string got;
    std::mutex mutex;
    std::condition_variable more;
    HttpClientRequest request;
    request.url = url("/stream");
    request.on_data = [&](std::string_view text) {
        const std::lock_guard hold(mutex);
        got += text;
        more.notify_all();
        return true;
    };
    Result<HttpResponse> response = fail(Code::kInternal, "");
    std::thread reader([&] { response = client.request(request); });
    const auto stream = streams.next();
    std::string sent;
    for (int i = 0; i < 200; ++i) {
        const std::string line = "line " + std::to_string(i) + "\n";
        sent += line;
        ASSERT_TRUE(stream->send(line));
        if (i == 100) {
            std::unique_lock hold(mutex);
            more.wait(hold, [&] { return got == sent; });
            EXPECT_EQ(get(client, "/beside")->status, 200);
        }
    }
    stream->end();
    reader.join();
    ASSERT_TRUE(response) << response.error().to_string();
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(got, sent);
    EXPECT_FALSE(stream->send("x"));
    // A reader who has enough ends it, too.
    request.on_data = [](std::string_view) { return false; };
    std::thread leaver([&] { response = client.request(request); });
    const auto left = streams.next();
    while (left->send("x")) std::this_thread::yield();
    leaver.join();
    EXPECT_EQ(code_of(response), Code::kCancelled);
}

// Broken if the end of a server waited for a reader, or cut what was sent before.
TEST_F(HttpTest, StopEndsStreams) {
    Streams streams;
    start([&](const HttpRequest&) { return streams.answer(); });
    HttpClient client(client_options_);
    std::string got;
    HttpClientRequest request;
    request.url = url("/");
    request.on_data = [&](std::string_view text) {
        got += text;
        return true;
    };
    Result<HttpResponse> response = fail(Code::kInternal, "");
    std::thread reader([&] { response = client.request(request); });
    const auto stream = streams.next();
    ASSERT_TRUE(stream->send("last words"));
    server_->stop(60'000'000);
    reader.join();
    ASSERT_TRUE(response) << response.error().to_string();
    EXPECT_EQ(got, "last words");
    EXPECT_FALSE(stream->send("x"));
    server_.reset();
    EXPECT_FALSE(stream->send("x")) << "a stream outlives its server";
}

// Broken if one who does not read made the server's memory grow, or blocked whoever sends.
TEST_F(HttpUnixTest, AReaderThatIsTooSlowIsDropped) {
    options_.max_stream_bytes = 64 << 10;
    Streams streams;
    start([&](const HttpRequest&) { return streams.answer(); });
    RawClient raw(server_->address());
    raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    const auto stream = streams.next();
    size_t sent = 0;
    while (stream->send(std::string(4096, 'x'))) {
        sent += 4096;
        EXPECT_LE(stream->waiting_bytes(), options_.max_stream_bytes);
        ASSERT_LT(sent, 64u << 20);
    }
    const std::string all = raw.read_to_end();
    EXPECT_THAT(all, StartsWith("HTTP/1.1 200"));
    EXPECT_LE(all.size(), sent + (64 << 10));
    EXPECT_THAT(all, Not(HasSubstr("\r\n0\r\n")));
}

// Broken if somebody who asks for the head of a stream, or in HTTP/1.0, got something else.
TEST_F(HttpUnixTest, StreamsForOthers) {
    Streams streams;
    start([&](const HttpRequest&) { return streams.answer(); });
    RawClient head(server_->address());
    head.send("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_THAT(head.read_to_end(), StartsWith("HTTP/1.1 200"));
    RawClient old(server_->address());
    old.send("GET / HTTP/1.0\r\n\r\n");
    const auto stream = streams.next();
    stream->send("plain");
    stream->end();
    const std::string all = old.read_to_end();
    EXPECT_THAT(all, HasSubstr("\r\n\r\nplain"));
}

// Sends one byte of a request each time it is asked to, until the server has closed it.
class Trickle {
  public:
    explicit Trickle(const std::string& path, std::string text)
        : raw_(path), text_(std::move(text)) {}
    void step() { raw_.send(std::string(1, at_ < text_.size() ? text_[at_++] : 'x')); }
    std::string end() { return raw_.read_to_end(); }

  private:
    RawClient raw_;
    std::string text_;
    size_t at_ = 0;
};

// Broken if many who send a byte now and then kept others from being served, or were not closed at
// their deadline.
TEST_F(HttpUnixTest, TricklingClientsAreClosedAndOthersServed) {
    options_.header_timeout_us = 200'000;
    options_.request_timeout_us = 200'000;
    options_.workers = 2;
    options_.max_connections = 200;
    start(echo);
    std::vector<std::unique_ptr<Trickle>> slow;
    for (int i = 0; i < 60; ++i) {
        slow.push_back(std::make_unique<Trickle>(
            server_->address(), "GET / HTTP/1.1\r\nX-Long: " + std::string(3000, 'y')));
        slow.push_back(std::make_unique<Trickle>(
            server_->address(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n"));
    }
    client_options_.unix_socket_path = server_->address();
    HttpClient client(client_options_);
    HttpClientRequest request;
    request.url = "http://local/served";
    for (int round = 0; round < 20; ++round) {
        for (const auto& one : slow) one->step();
        const auto response = client.request(request);
        ASSERT_TRUE(response) << response.error().to_string();
        EXPECT_EQ(response->status, 200);
    }
    // All of them end, and none has been answered.
    for (const auto& one : slow) EXPECT_EQ(one->end(), "");
}

// Broken if a body that comes byte by byte is waited for without end.
TEST_F(HttpUnixTest, ASlowBodyIsCutOff) {
    options_.request_timeout_us = 100'000;
    start(echo);
    RawClient raw(server_->address());
    raw.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\nhello");
    EXPECT_EQ(raw.read_to_end(), "");
}

// Broken if connections that do nothing kept a new one out, or busy ones were closed for it.
TEST_F(HttpUnixTest, TheLongestIdleMakesRoom) {
    options_.max_connections = 2;
    Streams streams;
    start([&](const HttpRequest& request) {
        return request.path == "/stream" ? streams.answer() : echo(request);
    });
    RawClient busy(server_->address());
    busy.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    const auto stream = streams.next();
    RawClient idle(server_->address());
    RawClient third(server_->address());
    third.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    const auto second_stream = streams.next();
    EXPECT_EQ(idle.read_to_end(), "");
    RawClient fourth(server_->address());
    EXPECT_EQ(fourth.read_to_end(), "") << "nobody is idle";
    EXPECT_TRUE(stream->send("x"));
    EXPECT_TRUE(second_stream->send("x"));
    stream->end();
    second_stream->end();
    EXPECT_THAT(busy.read_to_end(), HasSubstr("\r\n0\r\n"));
}

// Broken if one address could take every connection.
TEST_F(HttpTest, OneAddressHasSoManyConnections) {
    options_.max_connections_per_address = 2;
    Streams streams;
    start([&](const HttpRequest& request) {
        return request.path == "/stream" ? streams.answer() : echo(request);
    });
    std::vector<std::thread> readers;
    std::vector<std::shared_ptr<HttpStream>> open;
    for (int i = 0; i < 2; ++i) {
        readers.emplace_back([&] {
            HttpClient client(client_options_);
            HttpClientRequest request;
            request.url = url("/stream");
            request.on_data = [](std::string_view) { return true; };
            EXPECT_TRUE(client.request(request));
        });
        open.push_back(streams.next());
    }
    HttpClient third(client_options_);
    EXPECT_FALSE(get(third, "/"));
    for (const auto& stream : open) stream->end();
    for (std::thread& reader : readers) reader.join();
}

// Broken if requests could wait for a worker without bound.
TEST_F(HttpUnixTest, TooManyThatWaitAreAnswered503) {
    options_.workers = 1;
    options_.max_waiting = 1;
    std::mutex mutex;
    std::condition_variable changed;
    bool entered = false, leave = false;
    start([&](const HttpRequest& request) {
        std::unique_lock hold(mutex);
        entered = true;
        changed.notify_all();
        changed.wait(hold, [&] { return leave; });
        return echo(request);
    });
    const std::string request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    RawClient first(server_->address());
    first.send(request);
    {
        std::unique_lock hold(mutex);
        changed.wait(hold, [&] { return entered; });
    }
    // Of these one waits, and the others are too many.
    std::vector<std::string> answers;
    std::vector<std::thread> others;
    for (int i = 0; i < 3; ++i)
        others.emplace_back([&] {
            RawClient other(server_->address());
            other.send(request);
            std::string text = other.read_to_end();
            const std::lock_guard hold(mutex);
            answers.push_back(std::move(text));
            changed.notify_all();
        });
    {
        std::unique_lock hold(mutex);
        changed.wait(hold, [&] { return answers.size() == 2; });
        for (const std::string& refused : answers) EXPECT_THAT(refused, StartsWith("HTTP/1.1 503"));
        leave = true;
        changed.notify_all();
    }
    for (std::thread& other : others) other.join();
    EXPECT_THAT(answers.back(), StartsWith("HTTP/1.1 200"));
    EXPECT_THAT(first.read_to_end(), StartsWith("HTTP/1.1 200"));
}

}  // namespace
}  // namespace farshore
