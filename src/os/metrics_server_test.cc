#include "os/metrics_server.h"

#include <gtest/gtest.h>

namespace farshore {
namespace {

Result<HttpResponse> ask(const std::string& address, const std::string& method,
                         const std::string& target, const std::string& body = {}) {
    HttpClient client(HttpClientOptions{});
    HttpClientRequest request;
    request.method = method;
    request.url = "http://" + address + target;
    request.body = body;
    return client.request(request);
}

// Broken if numbers that nobody else is to see were readable on the network.
TEST(MetricsServerTest, OnlyLoopbackIsServedWithoutTls) {
    EXPECT_TRUE(check_metrics_address("127.0.0.1:9101"));
    EXPECT_TRUE(check_metrics_address("[::1]:9101"));
    EXPECT_TRUE(check_metrics_address("localhost:9101"));
    EXPECT_FALSE(check_metrics_address("9101"));
    for (const char* address : {"0.0.0.0:0", "[::]:0", "192.0.2.1:0"}) {
        EXPECT_EQ(check_metrics_address(address).error().code(), Code::kInvalidArgument) << address;
        auto refused = serve_metrics(address, [] { return std::string(); });
        ASSERT_FALSE(refused) << address;
        EXPECT_EQ(refused.error().code(), Code::kInvalidArgument) << address;
        EXPECT_NE(refused.error().what().find("no loopback address"), std::string::npos);
        EXPECT_FALSE(refused.error().remedy().empty());
    }
}

// Broken if anything but the numbers were there, or a stranger could keep it busy with bodies.
TEST(MetricsServerTest, NothingElseIsServed) {
    int asked = 0;
    auto server =
        serve_metrics("127.0.0.1:0", [&] { return "n " + std::to_string(++asked) + "\n"; });
    ASSERT_TRUE(server) << server.error().to_string();
    const std::string address = (*server)->address();
    auto answer = ask(address, "GET", "/metrics");
    ASSERT_TRUE(answer) << answer.error().to_string();
    EXPECT_EQ(answer->status, 200);
    EXPECT_EQ(answer->body, "n 1\n");
    EXPECT_EQ(answer->header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    EXPECT_EQ(ask(address, "GET", "/")->status, 404);
    EXPECT_EQ(ask(address, "GET", "/v1/items")->status, 404);
    EXPECT_EQ(ask(address, "DELETE", "/metrics")->status, 405);
    EXPECT_EQ(ask(address, "POST", "/metrics", "x")->status, 413);
    EXPECT_EQ(asked, 1);
}

}  // namespace
}  // namespace farshore
