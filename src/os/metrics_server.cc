#include "os/metrics_server.h"

#include <fmt/core.h>

#include "os/metrics_text.h"
#include "os/tls_connection.h"

namespace farshore {

HttpResponse metrics_response(std::string text) {
    return {200, {{"Content-Type", std::string(kMetricsContentType)}}, std::move(text)};
}

Status check_metrics_address(const std::string& address) {
    FS_ASSIGN(const HostPort where, parse_host_port(address));
    const std::string& host = where.host;
    const bool loopback = host.starts_with("127.") || host == "::1";
    const bool number = host.find(':') != std::string::npos ||
                        host.find_first_not_of("0123456789.") == std::string::npos;
    if (loopback || !number) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' is no loopback address: numbers go out without TLS", address),
                "listen on 127.0.0.1 or [::1]; a reader elsewhere comes through a proxy with TLS "
                "on this machine");
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
