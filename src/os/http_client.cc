#include <curl/curl.h>
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <mutex>

#include "os/http.h"

namespace farshore {
namespace {

// Of a connection, each way; curl's own 16 and 64 KiB cost system calls.
constexpr long kBufferBytes = 256 << 10;

void init_curl() {
    static std::once_flag once;
    std::call_once(once, [] { FS_CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK); });
}

struct EasyFree {
    void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
using Easy = std::unique_ptr<CURL, EasyFree>;

struct ListFree {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

// What the callbacks of one transfer need.
struct Transfer {
    HttpResponse response;
    size_t limit_bytes = 0;
    bool too_large = false;
    bool head = false;  // its length is of a body that does not come
    const std::atomic<bool>* cancelled = nullptr;
    bool once = false;
    int attempts = 0;
    const std::function<bool(std::string_view)>* on_data = nullptr;
    CURL* curl = nullptr;
    bool refused = false;  // by on_data
};

size_t on_body(char* data, size_t, size_t size, void* context) {
    auto* transfer = static_cast<Transfer*>(context);
    long status = 0;
    if (transfer->on_data != nullptr)
        curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200 && status < 300) {
        transfer->refused = !(*transfer->on_data)({data, size});
        return transfer->refused ? 0 : size;
    }
    if (transfer->response.body.size() + size > transfer->limit_bytes) {
        transfer->too_large = true;
        return 0;
    }
    transfer->response.body.append(data, size);
    return size;
}

size_t on_header(char* data, size_t, size_t size, void* context) {
    auto* transfer = static_cast<Transfer*>(context);
    std::string_view line(data, size);
    while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
    if (line.starts_with("HTTP/")) {
        transfer->response.headers.clear();  // the lines before belong to a 100 Continue
        return size;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return size;
    std::string name(line.substr(0, colon));
    for (char& c : name)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    std::string_view value = line.substr(colon + 1);
    while (!value.empty() && (value.front() == ' ' || value.front() == '\t'))
        value.remove_prefix(1);
    if (name == "content-length") {
        size_t length = 0;
        const auto [end, error] =
            std::from_chars(value.data(), value.data() + value.size(), length);
        if (error == std::errc() && length <= transfer->limit_bytes && !transfer->head)
            transfer->response.body.reserve(length);
    }
    transfer->response.headers.emplace_back(std::move(name), std::string(value));
    return size;
}

// Before each attempt to send the request.
int on_attempt(void* context, char*, char*, int, int) {
    auto* transfer = static_cast<Transfer*>(context);
    return transfer->attempts++ > 0 && transfer->once ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

int on_progress(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return *static_cast<Transfer*>(context)->cancelled ? 1 : 0;
}

Code code_of(CURLcode code) {
    switch (code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
        case CURLE_COULDNT_CONNECT:
            return Code::kUnavailable;
        case CURLE_OPERATION_TIMEDOUT:
            return Code::kTimeout;
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CERTPROBLEM:
        case CURLE_SSL_CACERT_BADFILE:
        case CURLE_SSL_ISSUER_ERROR:
            return Code::kUnauthenticated;
        case CURLE_ABORTED_BY_CALLBACK:
            return Code::kCancelled;
        case CURLE_URL_MALFORMAT:
        case CURLE_UNSUPPORTED_PROTOCOL:
            return Code::kInvalidArgument;
        case CURLE_WEIRD_SERVER_REPLY:
        case CURLE_BAD_CONTENT_ENCODING:
            return Code::kMalformed;
        default:
            return Code::kConnectionLost;
    }
}

// Of a proxy that answered CONNECT with `status`.
Error proxy_error(const HttpClientOptions& options, long status) {
    if (status == 407)
        return Error(Code::kUnauthenticated,
                     fmt::format("the proxy {} answers 407: {}", options.proxy,
                                 options.proxy_user.empty() ? "it asks for a user and a password"
                                                            : "it takes not this user or password"),
                     "see proxy_user and proxy_password");
    return Error(status == 403 ? Code::kForbidden : Code::kUnavailable,
                 fmt::format("the proxy {} answers {} to CONNECT", options.proxy, status),
                 "see that the proxy lets this machine through to that host and port");
}

// A query may hold a signature that opens doors: it is not for messages.
std::string_view without_query(const std::string& url) {
    return std::string_view(url).substr(0, url.find('?'));
}

curl_blob blob_of(std::string_view bytes) {
    curl_blob blob{};
    blob.data = const_cast<char*>(bytes.data());
    blob.len = bytes.size();
    blob.flags = CURL_BLOB_NOCOPY;  // the options live as long as the handles
    return blob;
}

}  // namespace

struct HttpClient::Impl {
    HttpClientOptions options;
    std::atomic<bool> cancelled{false};
    std::mutex mutex;
    std::vector<Easy> idle;

    Easy take() {
        {
            std::lock_guard lock(mutex);
            if (!idle.empty()) {
                Easy handle = std::move(idle.back());
                idle.pop_back();
                return handle;
            }
        }
        return Easy(curl_easy_init());
    }
    void give_back(Easy handle) {
        constexpr size_t kMaxIdle = 32;
        curl_easy_reset(handle.get());  // keeps its connections
        std::lock_guard lock(mutex);
        if (idle.size() < kMaxIdle) idle.push_back(std::move(handle));
    }
};

HttpClient::HttpClient(HttpClientOptions options) : impl_(std::make_unique<Impl>()) {
    init_curl();
    impl_->options = std::move(options);
}

HttpClient::~HttpClient() = default;

void HttpClient::cancel() { impl_->cancelled = true; }

Result<HttpResponse> HttpClient::request(const HttpClientRequest& request) {
    const HttpClientOptions& options = impl_->options;
    if (impl_->cancelled) return fail(Code::kCancelled, "the client was cancelled");
    Easy handle = impl_->take();
    CURL* curl = handle.get();
    if (curl == nullptr) return fail(Code::kInternal, "set up an HTTP request");
    Transfer transfer;
    transfer.limit_bytes = options.max_body_bytes;
    transfer.head = request.method == "HEAD";
    transfer.cancelled = &impl_->cancelled;
    transfer.once = request.once;
    transfer.on_data = request.on_data ? &request.on_data : nullptr;
    transfer.curl = curl;
    char reason[CURL_ERROR_SIZE] = {};

    const auto ms = [](int64_t us) { return static_cast<long>(std::max<int64_t>(us / 1000, 1)); };
    curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(curl, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, ms(options.connect_timeout_us));
    if (request.timeout_us > 0 || !request.on_data)
        curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS,
                         ms(request.timeout_us > 0 ? request.timeout_us : options.timeout_us));
    curl_easy_setopt(curl, CURLOPT_PROXY, options.proxy.c_str());
    if (!options.proxy_user.empty()) {
        const std::string password(as_text(options.proxy_password.reveal()));
        curl_easy_setopt(curl, CURLOPT_PROXYAUTH, static_cast<long>(CURLAUTH_BASIC));
        curl_easy_setopt(curl, CURLOPT_PROXYUSERNAME, options.proxy_user.c_str());
        curl_easy_setopt(curl, CURLOPT_PROXYPASSWORD, password.c_str());
    }
    if (options.stall_timeout_us > 0) {
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1000L);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                         std::max(1L, static_cast<long>(options.stall_timeout_us / 1'000'000)));
    }
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, kBufferBytes);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, kBufferBytes);
    if (!options.unix_socket_path.empty())
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, options.unix_socket_path.c_str());
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, options.verify_host_name ? 2L : 0L);
    curl_blob authority, certificate, key;
    if (!options.authority_pem.empty()) {
        authority = blob_of(options.authority_pem);
        curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &authority);
    }
    if (options.credentials) {
        certificate = blob_of(options.credentials->certificate_pem);
        key = blob_of(as_text(options.credentials->key_pem.reveal()));
        curl_easy_setopt(curl, CURLOPT_SSLCERT_BLOB, &certificate);
        curl_easy_setopt(curl, CURLOPT_SSLKEY_BLOB, &key);
    }

    std::unique_ptr<curl_slist, ListFree> headers;
    const auto add_header = [&](const std::string& line) {
        if (line.find_first_of("\r\n") != std::string::npos) return;
        curl_slist* longer = curl_slist_append(headers.get(), line.c_str());
        if (longer == nullptr) return;
        (void)headers.release();
        headers.reset(longer);
    };
    for (const auto& [name, value] : request.headers) add_header(name + ": " + value);
    add_header("Expect:");  // a refusal is cheap to us, a round trip before each body is not
    if (!options.bearer_token.empty())
        add_header(fmt::format("Authorization: Bearer {}", as_text(options.bearer_token.reveal())));
    const ByteView body =
        request.borrowed_body.empty() ? as_bytes(request.body) : request.borrowed_body;
    const bool has_body = !body.empty() || request.method == "POST" || request.method == "PUT" ||
                          request.method == "PATCH";
    if (has_body) {
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.empty() ? "" : as_text(body).data());
    }
    if (request.method == "HEAD") curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_PREREQFUNCTION, on_attempt);
    curl_easy_setopt(curl, CURLOPT_PREREQDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);

    const CURLcode result = curl_easy_perform(curl);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    long proxy_status = 0;
    curl_easy_getinfo(curl, CURLINFO_HTTP_CONNECTCODE, &proxy_status);
    impl_->give_back(std::move(handle));
    const std::string_view where = without_query(request.url);
    if (transfer.refused)
        return fail(Code::kCancelled, fmt::format("{} was not wanted any more", where));
    if (transfer.too_large)
        return fail(Code::kTooLarge, fmt::format("the answer of {} has more than {} bytes", where,
                                                 options.max_body_bytes));
    if (result == CURLE_ABORTED_BY_CALLBACK && transfer.once && transfer.attempts > 1)
        return fail(
            Code::kConnectionLost,
            fmt::format("{} {}: the connection ended before an answer", request.method, where));
    if (result != CURLE_OK && proxy_status >= 400) return fail(proxy_error(options, proxy_status));
    if (result != CURLE_OK)
        return fail(code_of(result),
                    fmt::format("{} {}: {}", request.method, where,
                                reason[0] != '\0' ? reason : curl_easy_strerror(result)));
    transfer.response.status = static_cast<int>(status);
    return std::move(transfer.response);
}

}  // namespace farshore
