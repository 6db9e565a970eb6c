#include "vault/notify_message.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "codec/hash.h"

namespace farshore {
namespace {

EventRecord event(Severity severity, const std::string& cause) {
    EventRecord event;
    event.id = 7;
    event.time = {1'700'000'000'000'000};
    event.severity = severity;
    event.code = "rpo-high";
    event.item_name = "web";
    event.cause = cause;
    event.remedy = "look";
    return event;
}
const NotifyContext kContext{"vault-1", "ops", {1'700'000'100'000'000}};

// Broken if a receiver could not tell that a message is ours, or an old one could be sent again.
TEST(NotifyMessage, TheSignatureIsOfTimeAndBody) {
    const std::string body = webhook_body(kContext, {event(Severity::kWarning, "a cause")});
    const auto json = nlohmann::json::parse(body);
    EXPECT_EQ(json["format"], 1);
    EXPECT_EQ(json["events"][0]["code"], "rpo-high");
    EXPECT_EQ(json["events"][0]["severity"], "warning");
    const Secret secret(as_bytes("shared"));
    const std::string signature = webhook_signature(secret, kContext.now, body);
    EXPECT_EQ(signature, "t=1700000100,v1=" + to_hex(hmac_sha256(as_bytes("shared"),
                                                                 as_bytes("1700000100." + body))));
    EXPECT_NE(webhook_signature(secret, {kContext.now.us + 1'000'000}, body), signature);
    EXPECT_NE(webhook_signature(Secret(as_bytes("other")), kContext.now, body), signature);
}

// Broken if what somebody called a machine, or a cause that came from elsewhere, could add headers
// or receivers to a mail, or lines that no server takes.
TEST(NotifyMessage, NothingInAnEventBecomesAHeader) {
    EventRecord bad = event(Severity::kCritical, "one\r\nBcc: all@example.com\r\n\r\n.\r\nQUIT");
    bad.item_name = "web\r\nBcc: more@example.com";
    bad.remedy = std::string(5000, 'x');
    const std::string mail =
        mail_message(kContext, "farshore@example.com", {"a@example.com", "b@example.com"},
                     {bad, event(Severity::kWarning, "another")}, "id1");
    const size_t end = mail.find("\r\n\r\n");
    ASSERT_NE(end, std::string::npos);
    const std::string head = mail.substr(0, end + 2);
    EXPECT_EQ(head.find("\r\nBcc:"), std::string::npos) << head;
    EXPECT_NE(head.find("To: a@example.com,\r\n b@example.com\r\n"), std::string::npos);
    EXPECT_NE(head.find("Subject: Farshore critical: web  Bcc: more@example.com: rpo-high (and 1 "
                        "more)\r\n"),
              std::string::npos)
        << head;
    EXPECT_NE(head.find("Date: Tue, 14 Nov 2023 22:15:00 +0000\r\n"), std::string::npos) << head;
    for (size_t at = 0; at < mail.size();) {
        const size_t line = mail.find("\r\n", at);
        ASSERT_NE(line, std::string::npos);
        EXPECT_LE(line - at, 998u);
        EXPECT_EQ(mail.substr(at, line - at).find_first_of("\r\n"), std::string::npos);
        at = line + 2;
    }
}

// Broken if a name that is not ASCII came out as something else.
TEST(NotifyMessage, NamesInAnyScriptStandInTheSubject) {
    EventRecord named = event(Severity::kWarning, "ursache");
    named.item_name = "büro-ノート";
    const std::string mail =
        mail_message(kContext, "f@example.com", {"a@example.com"}, {named}, "id");
    const size_t at = mail.find("Subject: =?utf-8?B?");
    ASSERT_NE(at, std::string::npos);
    const std::string subject = mail.substr(at, mail.find("\r\nDate", at) - at);
    EXPECT_TRUE(std::ranges::all_of(subject, [](char c) { return c < 0x7f; })) << subject;
    EXPECT_NE(subject.find("?B?RmFyc2hvcmUgd2FybmluZzogYsO8"), std::string::npos) << subject;
}

TEST(NotifyMessage, AddressesAreSeparatedByCommas) {
    EXPECT_EQ(split_addresses(" a@x.org , b@y.org,,"),
              (std::vector<std::string>{"a@x.org", "b@y.org"}));
    EXPECT_TRUE(split_addresses("").empty());
}

}  // namespace
}  // namespace farshore
