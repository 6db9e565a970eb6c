#include "os/metrics_server.h"

#include "os/metrics_text.h"

namespace farshore {

HttpResponse metrics_response(std::string text) {
    return {200, {{"Content-Type", std::string(kMetricsContentType)}}, std::move(text)};
}

Result<std::unique_ptr<HttpServer>> serve_metrics(const std::string& address,
                                                  std::function<std::string()> text) {
    HttpServerOptions options;
    options.address = address;
    options.plain_on_loopback = true;
    options.workers = 2;
    options.max_connections = 16;
    options.max_header_bytes = 8u << 10;
    options.max_body_bytes = 0;
    options.request_timeout_us = 10'000'000;
    return HttpServer::start(options, [text = std::move(text)](const HttpRequest& request) {
        if (request.path != "/metrics")
            return HttpResponse::text("there is only /metrics here\n", 404);
        if (request.method != "GET" && request.method != "HEAD") {
            HttpResponse refused = HttpResponse::text("only GET is answered here\n", 405);
            refused.headers.emplace_back("Allow", "GET, HEAD");
            return refused;
        }
        return metrics_response(text());
    });
}

}  // namespace farshore
