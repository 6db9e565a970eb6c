// One request to S3: signed, sent, and its failure in our words. The lowest of the three layers
// (wire, retrying, logic). Any thread may call, several at a time.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/seams.h"
#include "os/http.h"
#include "store/s3_signature.h"
#include "store/store_settings.h"

namespace farshore {

struct S3Call {
    std::string method = "GET";
    std::string key;  // whole, with the prefix; empty: the bucket
    S3Pairs query;
    S3Pairs headers;  // lower-case names
    ByteView body;    // lives as long as the call
};

class S3Wire {
  public:
    // `clock` outlives it. kInvalidArgument: an endpoint with a path; those of reading ca_file.
    static Result<std::unique_ptr<S3Wire>> make(FileSystem& files, Clock& clock,
                                                const StoreSettings& settings,
                                                const StoreLocation& location);

    // Any status. kUnavailable, kConnectionLost (an answer that was cut, too), kTimeout,
    // kUnauthenticated (the server's certificate), kCancelled. A clock that differs from the
    // server's is measured and made up for.
    Result<HttpResponse> send(const S3Call& call);
    // The same, and every status but 2xx is an error, as error_of() says.
    Result<HttpResponse> send_ok(const S3Call& call);
    // kNotFound is only said of an object, and only when the server says so in S3's words: a
    // missing bucket is kForeignStore, another server's 404 kUnsupported. 412 is kAlreadyExists,
    // 429 and 503 kThrottled, other 5xx kUnavailable, refusals kForbidden.
    Error error_of(const S3Call& call, const HttpResponse& response) const;

    void cancel() { http_.cancel(); }
    // The server's clock minus ours, as far as it had to be measured.
    int64_t clock_offset_us() const { return clock_offset_us_; }
    // For messages: "s3://BUCKET".
    const std::string& bucket_name() const { return bucket_name_; }

  private:
    S3Wire(HttpClientOptions http, Clock& clock) : http_(std::move(http)), clock_(clock) {}
    Result<HttpResponse> send_once(const S3Call& call, const std::string& payload_sha256);

    HttpClient http_;
    Clock& clock_;
    S3Keys keys_;
    std::string base_url_, host_, base_path_, bucket_name_;
    int64_t timeout_us_ = 0;
    std::atomic<int64_t> clock_offset_us_{0};
};

// What every remote store's client is made of: authority, proxy, time-outs.
Result<HttpClientOptions> store_http_options(FileSystem& files, const StoreSettings& settings);
// Of a request that carries so many bytes either way: the setting is for the line to be quick
// enough, the rest for the line to be slow.
int64_t store_timeout_us(int64_t timeout_us, uint64_t bytes);

}  // namespace farshore
