#include "os/reach_probe.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <netdb.h>
#include <sys/file.h>
#include <sys/socket.h>

#include <cstdlib>
#include <memory>

#include "os/fd.h"
#include "os/openssl.h"
#include "os/tls_connection.h"

namespace farshore {
namespace {

constexpr int64_t kSecondUs = 1'000'000;
constexpr int64_t kDayUs = 86'400 * kSecondUs;
constexpr size_t kMaxAnswerBytes = 1u << 20;

struct Place {
    bool https = false;
    std::string host;
    std::string port;
};

Result<Place> place_of(const std::string& url) {
    std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> parsed(curl_url(), curl_url_cleanup);
    const auto bad = [&] {
        return fail(Code::kInvalidArgument, fmt::format("'{}' is not an address", url),
                    "https://HOST[:PORT]");
    };
    if (curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) return bad();
    const auto part = [&](CURLUPart which) {
        char* text = nullptr;
        std::string out;
        if (curl_url_get(parsed.get(), which, &text, CURLU_DEFAULT_PORT) == CURLUE_OK) out = text;
        curl_free(text);
        return out;
    };
    Place place{part(CURLUPART_SCHEME) == "https", part(CURLUPART_HOST), part(CURLUPART_PORT)};
    if (place.host.empty()) return bad();
    if (place.host.front() == '[') place.host = place.host.substr(1, place.host.size() - 2);
    return place;
}

struct AddressesFree {
    void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, AddressesFree>;

Result<Addresses> resolve(const std::string& host, const std::string& port, int flags) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags;
    addrinfo* found = nullptr;
    const int error = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
    if (error != 0)
        return fail(Code::kUnavailable,
                    fmt::format("'{}' does not resolve: {}", host, ::gai_strerror(error)),
                    "see the name, and /etc/resolv.conf");
    return Addresses(found);
}

ReachStep resolve_step(const Place& place) {
    auto found = resolve(place.host, place.port, 0);
    if (!found) return ReachStep::failed("resolve", found.error());
    std::string all;
    int count = 0;
    for (const addrinfo* one = found->get(); one != nullptr && count < 8; one = one->ai_next) {
        char text[NI_MAXHOST];
        if (::getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, nullptr, 0,
                          NI_NUMERICHOST) != 0)
            continue;
        all += fmt::format("{}{}", count++ > 0 ? ", " : "", text);
    }
    return ReachStep::ok("resolve", all);
}

// What the callbacks of one transfer see.
struct Seen {
    bool connected = false;
    bool secured = false;
    std::string version, name;
    TimePoint not_after;
    HttpResponse response;
    CURL* curl = nullptr;
};

std::string printable_name(X509* certificate) {
    auto name = common_name_of(X509_get_subject_name(certificate));
    return name ? *name : "certificate without a common name";
}

// When the connection stands and the request has not gone out.
int on_ready(void* context, char*, char*, int, int) {
    auto* seen = static_cast<Seen*>(context);
    seen->secured = true;
    curl_tlssessioninfo* session = nullptr;
    if (curl_easy_getinfo(seen->curl, CURLINFO_TLS_SSL_PTR, &session) != CURLE_OK ||
        session == nullptr || session->internals == nullptr)
        return CURL_PREREQFUNC_OK;
    auto* ssl = static_cast<SSL*>(session->internals);
    seen->version = SSL_get_version(ssl);
    const X509Ptr peer(SSL_get1_peer_certificate(ssl));
    int days = 0, seconds = 0;
    if (peer && ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(peer.get())) == 1) {
        seen->not_after.us = days * kDayUs + seconds * kSecondUs;  // from now
        seen->name = printable_name(peer.get());
    }
    return CURL_PREREQFUNC_OK;
}

size_t on_body(char* data, size_t, size_t size, void* context) {
    auto* seen = static_cast<Seen*>(context);
    if (seen->response.body.size() + size > kMaxAnswerBytes) return 0;
    seen->response.body.append(data, size);
    return size;
}

size_t on_header(char* data, size_t, size_t size, void* context) {
    auto* seen = static_cast<Seen*>(context);
    std::string line(data, size);
    while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.pop_back();
    if (line.starts_with("HTTP/")) seen->response.headers.clear();  // of the proxy, of a 100
    const size_t colon = line.find(':');
    if (colon == std::string::npos) return size;
    std::string name = line.substr(0, colon);
    for (char& c : name)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    size_t value = colon + 1;
    while (value < line.size() && line[value] == ' ') ++value;
    seen->response.headers.emplace_back(std::move(name), line.substr(value));
    return size;
}

struct EasyFree {
    void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
using Easy = std::unique_ptr<CURL, EasyFree>;

struct Outcome {
    CURLcode code = CURLE_OK;
    std::string reason;
    long proxy_status = 0;
    long verify_result = 0;
};

void set_common(CURL* curl, const HttpClientOptions& client) {
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(kReachStepUs / 1000));
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(kReachStepUs / 1000));
    curl_easy_setopt(curl, CURLOPT_PROXY, client.proxy.c_str());
    if (client.proxy_user.empty()) return;
    const std::string password(as_text(client.proxy_password.reveal()));
    curl_easy_setopt(curl, CURLOPT_PROXYAUTH, static_cast<long>(CURLAUTH_BASIC));
    curl_easy_setopt(curl, CURLOPT_PROXYUSERNAME, client.proxy_user.c_str());
    curl_easy_setopt(curl, CURLOPT_PROXYPASSWORD, password.c_str());
}

Outcome perform(CURL* curl) {
    char reason[CURL_ERROR_SIZE] = {};
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
    Outcome out;
    out.code = curl_easy_perform(curl);
    out.reason = reason[0] != '\0' ? reason : curl_easy_strerror(out.code);
    curl_easy_getinfo(curl, CURLINFO_HTTP_CONNECTCODE, &out.proxy_status);
    curl_easy_getinfo(curl, CURLINFO_SSL_VERIFYRESULT, &out.verify_result);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);
    return out;
}

// TCP alone, through the proxy's tunnel where there is one.
ReachStep connect_step(const Place& place, const HttpClientOptions& client) {
    const Easy handle(curl_easy_init());
    FS_CHECK(handle != nullptr);
    CURL* curl = handle.get();
    set_common(curl, client);
    const bool v6 = place.host.find(':') != std::string::npos;
    const std::string url =
        fmt::format(fmt::runtime(v6 ? "http://[{}]:{}/" : "http://{}:{}/"), place.host, place.port);
    curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
    curl_easy_setopt(curl, CURLOPT_HTTPPROXYTUNNEL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
    const Outcome out = perform(curl);
    const std::string where = fmt::format("{}:{}", place.host, place.port);
    if (out.code == CURLE_OK)
        return ReachStep::ok("connect", client.proxy.empty()
                                            ? fmt::format("TCP to {}", where)
                                            : fmt::format("the proxy opens a tunnel to {}", where));
    if (out.proxy_status == 407)
        return ReachStep::failed(
            "connect",
            Error(Code::kUnauthenticated,
                  fmt::format("the proxy answers 407: {}",
                              client.proxy_user.empty() ? "it asks for a user and a password"
                                                        : "it takes not this user or password"),
                  "see the file that --proxy-settings (or the store's own settings) names"));
    if (out.proxy_status >= 400)
        return ReachStep::failed(
            "connect",
            Error(out.proxy_status == 403 ? Code::kForbidden : Code::kUnavailable,
                  fmt::format("the proxy answers {} to CONNECT {}", out.proxy_status, where),
                  out.proxy_status == 403
                      ? "let this machine through to that host and port at the proxy"
                      : "see that the peer runs, and that the proxy reaches it"));
    return ReachStep::failed(
        "connect",
        Error(out.code == CURLE_OPERATION_TIMEDOUT ? Code::kTimeout : Code::kUnavailable,
              out.reason,
              client.proxy.empty() ? "see that the peer runs, and firewalls and routes to it"
                                   : "see that the proxy runs, and the way to it"));
}

ReachStep tls_failure(const Outcome& out) {
    if (out.code == CURLE_PEER_FAILED_VERIFICATION && out.verify_result == X509_V_OK)
        return ReachStep::failed("tls", Error(Code::kUnauthenticated, out.reason,
                                              "name the peer as its certificate does, or give it "
                                              "a certificate for this name"));
    if (out.code == CURLE_PEER_FAILED_VERIFICATION)
        return ReachStep::failed("tls", Error(Code::kUnauthenticated, out.reason,
                                              "name the authority of the peer's certificate "
                                              "(--ca, or the store's ca_file); a proxy that opens "
                                              "TLS must let this host pass"));
    return ReachStep::failed(
        "tls", Error(out.code == CURLE_OPERATION_TIMEDOUT ? Code::kTimeout : Code::kConnectionLost,
                     out.reason, "see that the peer speaks TLS on this port"));
}

}  // namespace

ReachStep ReachStep::ok(std::string name, std::string detail) {
    return {std::move(name), ReachState::kOk, std::move(detail), {}, Code::kInternal, 0};
}
ReachStep ReachStep::warning(std::string name, std::string detail, std::string remedy) {
    return {std::move(name),   ReachState::kWarning, std::move(detail),
            std::move(remedy), Code::kInternal,      0};
}
ReachStep ReachStep::failed(std::string name, const Error& error) {
    return {std::move(name), ReachState::kFailed, error.what(), error.remedy(), error.code(), 0};
}

ReachStep judge_clock(TimePoint peer, TimePoint ours) {
    const int64_t ahead_us = ours.us - peer.us;
    const int64_t apart_us = std::abs(ahead_us);
    const std::string words =
        fmt::format("this machine's clock is {:.1f} s {} of the peer's",
                    static_cast<double>(apart_us) / 1e6, ahead_us >= 0 ? "ahead" : "behind");
    const char* remedy = "set both clocks by NTP";
    if (apart_us > 60 * kSecondUs)
        return ReachStep::failed("clock", Error(Code::kUnauthenticated, words, remedy));
    // The header has whole seconds.
    if (apart_us > 2 * kSecondUs) return ReachStep::warning("clock", words, remedy);
    return ReachStep::ok("clock", "at most 2 s apart");
}

ReachStep judge_certificate(std::string_view version, std::string_view name, TimePoint not_after,
                            TimePoint now) {
    const int64_t days = (not_after.us - now.us) / kDayUs;
    std::string words =
        fmt::format("{}, chain and name verified ('{}'), {} days left", version, name, days);
    if (days < 14)
        return ReachStep::warning("tls", std::move(words), "renew the peer's certificate");
    return ReachStep::ok("tls", std::move(words));
}

bool ReachAnswer::ok() const {
    for (const ReachStep& step : steps)
        if (step.state == ReachState::kFailed) return false;
    return true;
}

ReachAnswer probe_reach(const std::string& url, const HttpClientOptions& client,
                        const Clock& clock) {
    ReachAnswer answer;
    int64_t began = clock.steady_us();
    const auto add = [&](ReachStep step) {
        const int64_t now = clock.steady_us();
        step.ms = (now - began) / 1000;
        began = now;
        answer.steps.push_back(std::move(step));
        return answer.steps.back().state != ReachState::kFailed;
    };
    const auto place = place_of(url);
    if (!place) {
        add(ReachStep::failed("resolve", place.error()));
        return answer;
    }
    if (!add(client.proxy.empty() ? resolve_step(*place)
                                  : ReachStep::ok("resolve", "left to the proxy")))
        return answer;
    if (!add(connect_step(*place, client))) return answer;

    const Easy handle(curl_easy_init());
    FS_CHECK(handle != nullptr);
    CURL* curl = handle.get();
    Seen seen;
    seen.curl = curl;
    set_common(curl, client);
    curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    curl_blob authority{const_cast<char*>(client.authority_pem.data()), client.authority_pem.size(),
                        CURL_BLOB_NOCOPY};
    if (!client.authority_pem.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &authority);
    curl_easy_setopt(curl, CURLOPT_PREREQFUNCTION, on_ready);
    curl_easy_setopt(curl, CURLOPT_PREREQDATA, &seen);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &seen);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &seen);
    const Outcome out = perform(curl);
    const TimePoint now = clock.now();
    if (place->https) {
        if (!seen.secured) {
            add(tls_failure(out));
            return answer;
        }
        if (!add(judge_certificate(seen.version, seen.name, {now.us + seen.not_after.us}, now)))
            return answer;
    }
    if (out.code != CURLE_OK) {
        add(ReachStep::failed("request",
                              Error(Code::kConnectionLost, out.reason, "see the log of the peer")));
        return answer;
    }
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    seen.response.status = static_cast<int>(status);
    answer.response = std::move(seen.response);
    const auto date = from_http_date(answer.response.header("date"));
    add(date ? judge_clock(*date, now)
             : ReachStep::warning("clock", "the peer's answer has no date", "compare it yourself"));
    return answer;
}

ReachAnswer probe_proxy(const std::string& url, const Clock& clock) {
    ReachAnswer answer;
    int64_t began = clock.steady_us();
    const auto add = [&](ReachStep step) {
        step.ms = (clock.steady_us() - began) / 1000;
        began = clock.steady_us();
        answer.steps.push_back(std::move(step));
    };
    const auto place = place_of(url);
    add(place ? resolve_step(*place) : ReachStep::failed("resolve", place.error()));
    if (place && answer.ok()) add(connect_step(*place, {}));
    return answer;
}

Status probe_listen(const std::string& address) {
    FS_ASSIGN(const HostPort where, parse_host_port(address));
    FS_ASSIGN(const Addresses found,
              resolve(where.host, std::to_string(where.port), AI_PASSIVE | AI_NUMERICSERV));
    const UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) return fail_errno(errno, "make a socket");
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(fd.get(), found->ai_addr, found->ai_addrlen) == 0 && ::listen(fd.get(), 1) == 0)
        return {};
    if (errno == EADDRINUSE)
        return fail(Code::kAlreadyExists, fmt::format("{} is in use", address),
                    "end the program that listens there, or choose another port with "
                    "--replication-listen");
    if (errno == EADDRNOTAVAIL)
        return fail(Code::kUnavailable, fmt::format("this machine has no address {}", address),
                    "choose one of its own with --replication-listen");
    return fail_errno(errno, fmt::format("listen on {}", address));
}

bool instance_lock_held(const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    return fd && ::flock(fd.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

}  // namespace farshore
