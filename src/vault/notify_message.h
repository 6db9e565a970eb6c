// What notifiers are sent: the body of a webhook with its signature, and a mail. Pure; any thread.
// docs/operations/events.md "Being told".
#pragma once

#include <string>
#include <vector>

#include "base/secret.h"
#include "meta/records.h"

namespace farshore {

struct NotifyContext {
    std::string vault_id;
    std::string notifier;
    TimePoint now;
};

// A JSON document: {"format":1, "vault", "notifier", "sent", "events":[Event]}.
std::string webhook_body(const NotifyContext& context, const std::vector<EventRecord>& events);
// Of the header Farshore-Signature: "t=SECONDS,v1=HEX", HMAC-SHA-256 over "SECONDS.BODY". With the
// time in it a message that was caught cannot be sent again later.
std::string webhook_signature(const Secret& secret, TimePoint now, const std::string& body);

// A whole RFC 5322 message, CRLF line ends, UTF-8 (RFC 2047 in its header). Whatever an event
// holds, no line of it begins a header or is longer than 998 bytes.
std::string mail_message(const NotifyContext& context, const std::string& from,
                         const std::vector<std::string>& to, const std::vector<EventRecord>& events,
                         const std::string& message_id);

// Addresses, separated by commas; spaces around them do not count.
std::vector<std::string> split_addresses(const std::string& text);

}  // namespace farshore
