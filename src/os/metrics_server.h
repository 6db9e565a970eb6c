// Where Prometheus fetches the numbers of an appliance or an agent: GET /metrics over plain HTTP on
// a loopback address, and nothing else. Anybody on the machine may read it: there are no secrets in
// it, but the ids of items.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "os/http.h"

namespace farshore {

HttpResponse metrics_response(std::string text);

// Whether the text can be such an address; what a name stands for is asked at the start only.
// kInvalidArgument.
Status check_metrics_address(const std::string& address);

// Serves until it is destroyed, which waits for a `text` that runs. `text` makes the answer
// (os/metrics_text.h) on one of two threads; what it borrows outlives the server. `address`:
// "host:port" (port 0: any). kInvalidArgument: not on loopback; kAlreadyExists: in use.
Result<std::unique_ptr<HttpServer>> serve_metrics(const std::string& address,
                                                  std::function<std::string()> text);

}  // namespace farshore
