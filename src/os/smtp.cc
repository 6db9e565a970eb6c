#include "os/smtp.h"

#include <curl/curl.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace farshore {
namespace {

struct Upload {
    const std::string* message;
    size_t at = 0;
    const std::atomic<bool>* cancelled;
};

size_t on_read(char* out, size_t size, size_t count, void* context) {
    auto* upload = static_cast<Upload*>(context);
    const size_t n = std::min(size * count, upload->message->size() - upload->at);
    std::memcpy(out, upload->message->data() + upload->at, n);
    upload->at += n;
    return n;
}

int on_progress(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return *static_cast<Upload*>(context)->cancelled ? 1 : 0;
}

size_t ignore(char*, size_t size, size_t count, void*) { return size * count; }

// One line of the conversation: nothing in it may begin another.
Status check_address(const std::string& address) {
    const bool good = address.size() <= 254 && address.find('@') != std::string::npos &&
                      std::ranges::all_of(address, [](char c) {
                          return c > ' ' && c != 0x7f && c != '<' && c != '>' && c != ',';
                      });
    if (good) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' is not a mail address", address.substr(0, 80)));
}

Code code_of(CURLcode result, long answer) {
    switch (result) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_CONNECT:
            return Code::kUnavailable;
        case CURLE_OPERATION_TIMEDOUT:
            return Code::kTimeout;
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CACERT_BADFILE:
        case CURLE_USE_SSL_FAILED:
        case CURLE_LOGIN_DENIED:
            return Code::kUnauthenticated;
        case CURLE_ABORTED_BY_CALLBACK:
            return Code::kCancelled;
        case CURLE_URL_MALFORMAT:
        case CURLE_UNSUPPORTED_PROTOCOL:
            return Code::kInvalidArgument;
        default:
            // 4yz: later, perhaps; 5yz: never (RFC 5321 §4.2.1).
            return answer >= 500 && answer < 600 ? Code::kForbidden : Code::kConnectionLost;
    }
}

}  // namespace

Status send_mail(const SmtpServer& server, const std::string& from,
                 const std::vector<std::string>& to, const std::string& message,
                 const std::atomic<bool>& cancelled) {
    const bool secure = server.url.starts_with("smtps://");
    if (!secure && !server.url.starts_with("smtp://"))
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is not an SMTP server", server.url.substr(0, 200)),
                    "smtp://HOST:PORT or smtps://HOST:PORT");
    FS_TRY(check_address(from));
    if (to.empty()) return fail(Code::kInvalidArgument, "the mail has no receiver");
    for (const std::string& address : to) FS_TRY(check_address(address));
    const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> handle(curl_easy_init(),
                                                                     curl_easy_cleanup);
    if (!handle) return fail(Code::kInternal, "libcurl gives no handle");
    CURL* curl = handle.get();
    char reason[CURL_ERROR_SIZE] = "";
    Upload upload{&message, 0, &cancelled};
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_URL, server.url.c_str());
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, server.connect_timeout_us / 1000);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, server.timeout_us / 1000);
    curl_easy_setopt(curl, CURLOPT_USE_SSL,
                     static_cast<long>(server.plain ? CURLUSESSL_NONE : CURLUSESSL_ALL));
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    curl_blob authority{};
    if (!server.authority_pem.empty()) {
        authority.data = const_cast<char*>(server.authority_pem.data());
        authority.len = server.authority_pem.size();
        authority.flags = CURL_BLOB_NOCOPY;
        curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &authority);
        curl_easy_setopt(curl, CURLOPT_CAPATH, nullptr);
    }
    if (!server.user.empty()) {
        curl_easy_setopt(curl, CURLOPT_USERNAME, server.user.c_str());
        const std::string password(as_text(server.password.reveal()));
        curl_easy_setopt(curl, CURLOPT_PASSWORD, password.c_str());
    }
    const std::string sender = "<" + from + ">";
    curl_easy_setopt(curl, CURLOPT_MAIL_FROM, sender.c_str());
    curl_slist* list = nullptr;
    for (const std::string& address : to) {
        curl_slist* longer = curl_slist_append(list, ("<" + address + ">").c_str());
        if (longer != nullptr) list = longer;
    }
    const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> receivers(
        list, curl_slist_free_all);
    curl_easy_setopt(curl, CURLOPT_MAIL_RCPT, receivers.get());
    curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(curl, CURLOPT_READDATA, &upload);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, ignore);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &upload);
    const CURLcode result = curl_easy_perform(curl);
    if (result == CURLE_OK) return {};
    long answer = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer);
    return fail(
        code_of(result, answer),
        fmt::format("{}: {}{}", server.url, reason[0] != '\0' ? reason : curl_easy_strerror(result),
                    answer >= 400 ? fmt::format(" (it answered {})", answer) : ""));
}

}  // namespace farshore
