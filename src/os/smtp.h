// Sending mail through an SMTP server (libcurl). Blocking; any thread may call.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/secret.h"

namespace farshore {

struct SmtpServer {
    std::string url;  // smtp://HOST[:PORT] (STARTTLS) or smtps://HOST[:PORT] (TLS from the start)
    // smtp:// only: without TLS. For a server on this very machine.
    bool plain = false;
    std::string authority_pem;  // trusted authorities; empty: those of the system
    std::string user;           // empty: nobody signs in
    Secret password;
    int64_t connect_timeout_us = 10'000'000;
    int64_t timeout_us = 60'000'000;
};

// `message` is a whole RFC 5322 message with CRLF line ends. kInvalidArgument (URL, an address),
// kUnavailable, kTimeout, kUnauthenticated (certificate, password), kForbidden (the server takes
// not this sender or receiver), kConnectionLost, kCancelled once `cancelled` is true.
Status send_mail(const SmtpServer& server, const std::string& from,
                 const std::vector<std::string>& to, const std::string& message,
                 const std::atomic<bool>& cancelled);

}  // namespace farshore
