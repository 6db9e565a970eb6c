// The wire to one container of an Azure Blob account: URLs, signatures, tokens, and the service's
// errors as ours. No retries but one: when the service refuses because of a clock, with the
// service's time.
//
// Any thread may call, several at a time.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/seams.h"
#include "base/secret.h"
#include "os/http.h"
#include "store/azure_identity.h"
#include "store/azure_signature.h"

namespace farshore {

// Known to Azure and to Azurite; what this code reads and sends is of this version.
inline constexpr const char* kAzureServiceVersion = "2023-11-03";

struct AzureAccess {
    std::string account;
    std::string container;
    // "https://host[:port][/path]" of the account; empty: https://ACCOUNT.blob.core.windows.net.
    // http only to this machine.
    std::string endpoint;
    // Exactly one of the three.
    Secret account_key;  // base64
    Secret sas;          // a query, with or without its '?'
    bool managed_identity = false;
    AzureIdentityOptions identity;

    std::string authority_pem;  // trusted; empty: those of the system
    std::string proxy;          // "http://host:port"; empty: none
    std::string proxy_user;     // empty: the proxy asks for none
    Secret proxy_password;
    int64_t connect_timeout_us = 10'000'000;
    // Of one request without its body; 64 KiB/s are added for that.
    int64_t timeout_us = 60'000'000;
};

struct AzureRequest {
    std::string method = "GET";
    std::string blob;    // its name, not encoded; empty: the container
    NameValues query;    // not encoded
    NameValues headers;  // beside those that every request has
    ByteView body;       // borrowed for the call
    std::string doing;   // "put the blob": begins the words of errors
    int64_t expected_answer_bytes = 0;
};

class AzureClient {
  public:
    // kInvalidArgument: names, endpoint, not exactly one credential, a key that is none. `clock`
    // outlives the client.
    static Result<std::unique_ptr<AzureClient>> make(AzureAccess access, Clock& clock);

    // An answer of the service with a status below 300. Others are errors: kNotFound (the blob; a
    // missing container is kForeignStore), kAlreadyExists (409 BlobAlreadyExists, any 412),
    // kUnauthenticated, kForbidden, kThrottled, kUnavailable, kTimeout, kConnectionLost,
    // kMalformed (who answers is no Blob service), kUnsupported (501), kNoSpace, kIo.
    // What was asked may have happened after kTimeout, kConnectionLost and kUnavailable.
    Result<HttpResponse> call(const AzureRequest& request);

    // The service's clock less ours, as far as it had to be learned; else 0.
    int64_t clock_offset_us() const { return clock_offset_us_; }
    // Its name in errors: "azure://ACCOUNT/CONTAINER".
    const std::string& place() const { return place_; }
    const AzureAccess& access() const { return access_; }
    // Calls under way end with kCancelled within a second, and so does every later one.
    void cancel();

  private:
    AzureClient(AzureAccess access, Clock& clock);
    Result<HttpResponse> send(const AzureRequest& request);
    Result<NameValues> authorized_headers(const AzureRequest& request, const std::string& url_path);
    // Whether the service's time differs so much from what was used that another attempt makes
    // sense; learns it.
    bool learn_clock(const HttpResponse& answer);
    Error error_of(const AzureRequest& request, const HttpResponse& answer) const;
    std::string sas_expiry() const;

    const AzureAccess access_;
    Clock& clock_;
    std::string place_;
    std::string base_url_;   // with the container
    std::string base_path_;  // of base_url_
    Secret key_;             // decoded
    std::string sas_query_;
    std::unique_ptr<HttpClient> http_;
    std::unique_ptr<AzureIdentity> identity_;
    std::atomic<int64_t> clock_offset_us_{0};
};

}  // namespace farshore
