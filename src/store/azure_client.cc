#include "store/azure_client.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>

#include "store/azure_answers.h"

namespace farshore {
namespace {

constexpr int64_t kSecond = 1'000'000;
// Azure refuses requests whose date is a quarter of an hour away; less is no reason.
constexpr int64_t kSkewThatMatters = 300 * kSecond;
constexpr int64_t kSlowestBytesPerSecond = 64 << 10;

// A name as a path: each part percent-encoded.
std::string encode_path(std::string_view name) {
    std::string out;
    while (true) {
        const size_t slash = name.find('/');
        out += percent_encode(name.substr(0, slash));
        if (slash == std::string_view::npos) return out;
        out += '/';
        name.remove_prefix(slash + 1);
    }
}

std::string_view host_of(std::string_view url) {
    std::string_view host = url.substr(url.find("://") + 3);
    host = host.substr(0, host.find('/'));
    if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
    return host.substr(0, host.find(':'));
}

bool is_this_machine(std::string_view host) {
    return host == "localhost" || host == "[::1]" || host.starts_with("127.");
}

bool is_name(std::string_view name, size_t shortest, size_t longest, bool hyphens) {
    return name.size() >= shortest && name.size() <= longest &&
           std::all_of(name.begin(), name.end(), [&](char c) {
               return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (hyphens && c == '-');
           });
}

struct Known {
    std::string_view code;
    Code ours;
    std::string_view remedy;
};
// The service's codes that mean something else than their status does, or have a remedy.
constexpr Known kKnown[] = {
    {"BlobNotFound", Code::kNotFound, ""},
    {"BlobAlreadyExists", Code::kAlreadyExists, ""},
    {"ContainerNotFound", Code::kForeignStore,
     "make the container (private access), or correct its name"},
    {"ContainerBeingDeleted", Code::kForeignStore,
     "the container was deleted a moment ago: use another one"},
    {"ContainerDisabled", Code::kForbidden, "enable the container"},
    {"ResourceNotFound", Code::kForeignStore, "correct the names of account and container"},
    {"AccountIsDisabled", Code::kForbidden, "see why the subscription is disabled"},
    {"AuthorizationFailure", Code::kForbidden,
     "see that key or signature are this account's and were not changed since, and that the "
     "account's firewall (\"Networking\") lets this machine through"},
    {"AuthorizationPermissionMismatch", Code::kForbidden,
     "a SAS needs the permissions racwdl on the container (i too for immutability), an identity "
     "the role Storage Blob Data Contributor"},
    {"AuthorizationResourceTypeMismatch", Code::kForbidden,
     "the SAS must be one for the container, or for the account with resource types c and o"},
    {"AuthorizationServiceMismatch", Code::kForbidden, "the SAS must be one for Blob storage"},
    {"AuthorizationProtocolMismatch", Code::kForbidden, "the SAS is for https only"},
    {"AuthorizationSourceIPMismatch", Code::kForbidden,
     "the SAS is for other addresses than this machine's"},
    {"InsufficientAccountPermissions", Code::kForbidden,
     "the account key may not write: the account is read-only (a secondary, or locked)"},
    {"KeyBasedAuthenticationNotPermitted", Code::kForbidden,
     "the account takes no keys and no SAS made from them: use a managed identity"},
    {"InvalidAuthenticationInfo", Code::kUnauthenticated, ""},
    {"NoAuthenticationInformation", Code::kUnauthenticated, ""},
    {"BlobImmutableDueToPolicy", Code::kForbidden,
     "the blob is under an immutability policy; it can be removed when that ends"},
    {"BlobImmutableDueToLegalHold", Code::kForbidden, "the blob is under a legal hold"},
    {"BlobArchived", Code::kWrongState,
     "a lifecycle rule moved it to the archive tier: rehydrate it, and remove the rule"},
    {"BlobBeingRehydrated", Code::kWrongState, "wait until the blob is back from the archive"},
    {"LeaseIdMissing", Code::kForbidden, "somebody holds a lease on the blob: break it"},
    {"Md5Mismatch", Code::kConnectionLost, ""},  // damaged on its way: once more
    {"ServerBusy", Code::kThrottled, ""},
    {"OperationTimedOut", Code::kTimeout, ""},
    {"InternalError", Code::kUnavailable, ""},
    {"APINotImplemented", Code::kUnsupported, ""},
    {"FeatureVersionMismatch", Code::kUnsupported, ""},
    {"UnsupportedHeader", Code::kUnsupported, ""},
};

Code code_of_status(int status) {
    switch (status) {
        case 401:
            return Code::kUnauthenticated;
        case 403:
            return Code::kForbidden;
        case 408:
            return Code::kTimeout;
        case 412:
            return Code::kAlreadyExists;
        case 413:
            return Code::kTooLarge;
        case 429:
            return Code::kThrottled;
        case 501:
            return Code::kUnsupported;
        case 507:
            return Code::kNoSpace;
        case 500:
        case 502:
        case 503:
        case 504:
            return Code::kUnavailable;
        default:
            return Code::kIo;
    }
}

}  // namespace

AzureClient::AzureClient(AzureAccess access, Clock& clock)
    : access_(std::move(access)), clock_(clock) {}

Result<std::unique_ptr<AzureClient>> AzureClient::make(AzureAccess access, Clock& clock) {
    if (!is_name(access.account, 3, 24, false))
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is no name of an Azure storage account", access.account),
                    "3 to 24 lower-case letters and digits");
    if (!is_name(access.container, 3, 63, true) || access.container.front() == '-' ||
        access.container.back() == '-' || access.container.find("--") != std::string::npos)
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is no name of a container", access.container),
                    "3 to 63 lower-case letters, digits and single hyphens between them");
    if (access.endpoint.empty())
        access.endpoint = fmt::format("https://{}.blob.core.windows.net", access.account);
    while (access.endpoint.ends_with('/')) access.endpoint.pop_back();
    const bool https = access.endpoint.starts_with("https://");
    if ((!https && !access.endpoint.starts_with("http://")) || host_of(access.endpoint).empty() ||
        access.endpoint.find_first_of("?#@ ") != std::string::npos)
        // Not shown: what should not be in it may be a secret.
        return fail(Code::kInvalidArgument, "the endpoint is none",
                    "https://host[:port][/path], without a user or a query");
    if (!https && !is_this_machine(host_of(access.endpoint)))
        return fail(
            Code::kInvalidArgument,
            fmt::format("the endpoint {} would carry credentials in the clear", access.endpoint),
            "use https; a private authority's certificate can be named as ca_file");
    const int credentials =
        int{!access.account_key.empty()} + int{!access.sas.empty()} + int{access.managed_identity};
    if (credentials != 1)
        return fail(Code::kInvalidArgument,
                    fmt::format("{} credentials for {}", credentials == 0 ? "no" : "several",
                                access.account),
                    "give exactly one of account_key, sas and managed_identity");

    std::unique_ptr<AzureClient> client(new AzureClient(std::move(access), clock));
    const AzureAccess& own = client->access_;
    client->place_ = fmt::format("azure://{}/{}", own.account, own.container);
    client->base_url_ = own.endpoint + "/" + own.container;
    client->base_path_ = client->base_url_.substr(client->base_url_.find('/', sizeof "https://"));
    if (!own.account_key.empty()) {
        FS_ASSIGN(client->key_, decode_account_key(own.account_key));
    }
    std::string_view sas = as_text(own.sas.reveal());
    if (sas.starts_with('?')) sas.remove_prefix(1);
    while (!sas.empty() && (sas.back() == '\n' || sas.back() == '\r')) sas.remove_suffix(1);
    if (!own.sas.empty() &&
        (sas.find("sig=") == std::string_view::npos ||
         std::any_of(sas.begin(), sas.end(), [](char c) { return c <= ' ' || c > '~'; })))
        return fail(Code::kInvalidArgument, "the sas is none: it has no sig=",
                    "give the part behind the '?' of a URL with a shared access signature");
    client->sas_query_ = sas;
    if (own.managed_identity)
        client->identity_ = std::make_unique<AzureIdentity>(own.identity, clock);

    HttpClientOptions http;
    http.authority_pem = own.authority_pem;
    http.proxy = own.proxy;
    http.proxy_user = own.proxy_user;
    http.proxy_password = own.proxy_password;
    http.connect_timeout_us = own.connect_timeout_us;
    http.timeout_us = own.timeout_us;
    http.stall_timeout_us = std::min<int64_t>(own.timeout_us, 30 * kSecond);
    http.max_body_bytes = 96u << 20;
    client->http_ = std::make_unique<HttpClient>(std::move(http));
    return client;
}

void AzureClient::cancel() {
    http_->cancel();
    if (identity_) identity_->cancel();
}

Result<HttpResponse> AzureClient::call(const AzureRequest& request) {
    const auto refused = [](const HttpResponse& answer) {
        return answer.status == 401 || answer.status == 403;
    };
    FS_ASSIGN(HttpResponse answer, send(request));
    if (refused(answer) && (learn_clock(answer) || (identity_ && answer.status == 401))) {
        FS_ASSIGN(answer, send(request));
    }
    // What a proxy or a portal answers in the service's place is no success.
    const bool of_service = !answer.header("x-ms-request-id").empty();
    if (answer.status >= 200 && answer.status < 300 && of_service) return answer;
    return fail(error_of(request, answer));
}

Result<HttpResponse> AzureClient::send(const AzureRequest& request) {
    const std::string path = request.blob.empty() ? "" : "/" + encode_path(request.blob);
    HttpClientRequest out;
    out.method = request.method;
    out.url = base_url_ + path;
    char separator = '?';
    for (const auto& [name, value] : request.query) {
        out.url += fmt::format("{}{}={}", separator, percent_encode(name), percent_encode(value));
        separator = '&';
    }
    if (!sas_query_.empty()) out.url += separator + sas_query_;
    out.headers = request.headers;
    out.headers.emplace_back("x-ms-version", kAzureServiceVersion);
    out.headers.emplace_back("x-ms-date",
                             to_http_date({clock_.now().us + clock_offset_us_.load()}));
    if (request.method == "PUT") {
        out.headers.emplace_back("Content-Type", "application/octet-stream");
        if (!request.body.empty())
            out.headers.emplace_back("Content-MD5", content_md5(request.body));
    }
    Secret token;
    if (!key_.empty()) {
        out.headers.emplace_back(
            "Authorization", azure_authorization(access_.account, key_,
                                                 {request.method, base_path_ + path, request.query,
                                                  out.headers, request.body.size()}));
    } else if (identity_) {
        FS_ASSIGN(token, identity_->token());
        out.headers.emplace_back("Authorization",
                                 fmt::format("Bearer {}", as_text(token.reveal())));
    }
    out.borrowed_body = request.body;
    // A put that was done, and is sent again behind our back, finds its own blob in the way.
    out.once = request.method == "PUT";
    out.timeout_us = access_.timeout_us +
                     (static_cast<int64_t>(request.body.size()) + request.expected_answer_bytes) /
                         kSlowestBytesPerSecond * kSecond;
    auto answer = http_->request(out);
    if (!answer)
        return fail(answer.error().with_context(fmt::format("{} ({})", request.doing, place_)));
    if (answer->status == 401 && identity_) identity_->forget(token);
    return std::move(*answer);
}

bool AzureClient::learn_clock(const HttpResponse& answer) {
    // Only a signature holds the time; and only the service's own clock says anything.
    if (key_.empty() || answer.header("x-ms-request-id").empty()) return false;
    const auto theirs = from_http_date(answer.header("date"));
    if (!theirs) return false;
    const int64_t found_us = theirs->us - clock_.now().us;
    const int64_t wanted_us = std::abs(found_us) >= kSkewThatMatters ? found_us : 0;
    return std::abs(wanted_us - clock_offset_us_.exchange(wanted_us)) >= kSkewThatMatters;
}

std::string AzureClient::sas_expiry() const {
    std::string_view rest = sas_query_;
    while (!rest.empty()) {
        const std::string_view pair = rest.substr(0, rest.find('&'));
        if (pair.starts_with("se=")) return percent_decode(pair.substr(3)).value_or("");
        if (pair.size() == rest.size()) break;
        rest.remove_prefix(pair.size() + 1);
    }
    return {};
}

Error AzureClient::error_of(const AzureRequest& request, const HttpResponse& answer) const {
    AzureErrorText text = parse_azure_error(answer.body);
    if (const std::string code = answer.header("x-ms-error-code"); !code.empty())
        text.code = code.substr(0, 100);
    const std::string doing = fmt::format("{} ({})", request.doing, place_);
    if (text.code.empty() && (answer.header("x-ms-request-id").empty() || answer.status < 400) &&
        code_retry(code_of_status(answer.status)) == Retry::kNever)
        return Error(Code::kMalformed,
                     fmt::format("{}: the answer {} is not a Blob service's", doing, answer.status),
                     "see that the endpoint is right, and that no proxy answers in its place");
    if (text.code.empty() && answer.status < 500 && answer.status != 401 && answer.status != 403 &&
        answer.status != 408 && answer.status != 412 && answer.status != 429)
        return Error(Code::kMalformed,
                     fmt::format("{}: the answer {} names no error", doing, answer.status),
                     "see that the endpoint is right, and that no proxy answers in its place");

    Code code = code_of_status(answer.status);
    std::string remedy;
    for (const Known& known : kKnown)
        if (known.code == text.code) {
            code = known.ours;
            remedy = known.remedy;
        }
    std::string what = fmt::format("{}: {} {}", doing, answer.status, text.code);
    if (!text.message.empty()) what += fmt::format(" ({})", text.message);
    if (!text.detail.empty()) what += fmt::format(", {}", text.detail);
    // Azurite has the other code for these, too.
    if (text.code != "AuthenticationFailed" && text.code != "AuthorizationFailure")
        return Error(code, what, remedy);

    // One code for a wrong key, a wrong clock and a SAS that has ended: tell them apart.
    const auto theirs = from_http_date(answer.header("date"));
    if (const std::string expiry = sas_expiry(); !expiry.empty()) {
        auto end =
            from_rfc3339(expiry.find('T') == std::string::npos ? expiry + "T00:00:00Z" : expiry);
        const TimePoint now = theirs ? *theirs : clock_.now();
        if (end && end->us <= now.us)
            return Error(
                Code::kUnauthenticated,
                fmt::format("{}: the shared access signature expired at {}", doing, expiry),
                "make a new one that lasts longer (or use a stored access policy, or a "
                "managed identity), and put it into the store settings");
    }
    const int64_t skew_us = theirs ? theirs->us - clock_.now().us : 0;
    if (std::abs(skew_us) >= kSkewThatMatters)
        return Error(Code::kUnauthenticated,
                     fmt::format("{}; this machine's clock is {} s {} the service's", what,
                                 std::abs(skew_us) / kSecond, skew_us > 0 ? "behind" : "ahead of"),
                     "set the clock (NTP); if it is right, see whether the key is");
    if (text.code == "AuthorizationFailure") return Error(code, what, remedy);
    return Error(Code::kUnauthenticated, what,
                 !sas_query_.empty()
                     ? "the shared access signature is not (or no longer) valid: its key was "
                       "changed, its policy removed, or it was cut when it was copied"
                     : "the account key is not this account's, or was changed since");
}

}  // namespace farshore
