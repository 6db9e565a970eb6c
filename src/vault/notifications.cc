#include "vault/notifications.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>

#include "meta/json_fields.h"
#include "meta/parties.h"
#include "os/http.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/smtp.h"
#include "vault/log_about.h"
#include "vault/notify_message.h"
#include "vault/webhook.h"

namespace farshore {
namespace {

constexpr size_t kEventsAMessage = 100;
constexpr size_t kMaxTargetBytes = 2048;
constexpr int64_t kTimeoutUs = 15'000'000;
constexpr int64_t kRetryFirstUs = 10'000'000, kRetryMaxUs = 600'000'000;
constexpr int64_t kWebhookPauseUs = 5'000'000, kMailPauseUs = 60'000'000;
// One that has failed for so long is an event of its own.
constexpr int64_t kFailingUs = 900'000'000;

// The end of a critical alarm is told to everybody who was told of it.
bool wants(const NotifierRecord& notifier, const EventRecord& event) {
    if (event.code == "critical-alarm-cleared") return true;
    if (event.code == "alarm-cleared") return notifier.least <= Severity::kWarning;
    return event.severity >= notifier.least;
}

struct Settings {
    Secret secret;  // webhook
    SmtpServer smtp;
    std::string from;
    std::string authority_pem;
};

}  // namespace

struct Notifications::Impl {
    Impl(Vault& vault_in, FileSystem& files_in, Clock& clock_in, Random& random_in)
        : vault(vault_in), files(files_in), clock(clock_in), random(random_in) {}

    Vault& vault;
    FileSystem& files;
    Clock& clock;
    Random& random;
    std::atomic<bool> ending{false};
    std::mutex client_mutex;       // below
    std::set<HttpClient*> asking;  // that an end has to interrupt
    std::mutex work;               // held while one is told
    struct Pace {
        int64_t next_us = 0;   // steady: not before
        int64_t retry_us = 0;  // 0: the newest attempt went well
        bool said = false;     // that it fails
    };
    std::map<std::string, Pace> paces;
    std::unique_ptr<ThreadExecutor> ticker;

    Result<Settings> settings_of(NotifierKind kind, const std::string& file) {
        Settings settings;
        if (kind == NotifierKind::kWebhook) {
            FS_ASSIGN(WebhookSettings webhook, read_webhook_settings(files, file));
            settings.secret = std::move(webhook.secret);
            settings.authority_pem = std::move(webhook.authority_pem);
            return settings;
        }
        FS_ASSIGN(const Json json, read_private_settings(files, file));
        FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "settings"));
        FS_ASSIGN(settings.authority_pem, read_authority(files, fields, file));
        FS_ASSIGN(settings.smtp.url, fields.required_text("server", kMaxTargetBytes));
        FS_ASSIGN(settings.from, fields.required_text("from", 254));
        FS_ASSIGN(settings.smtp.user, fields.text("user", 256));
        FS_ASSIGN(const std::string password, fields.text("password", 4096));
        settings.smtp.password = Secret(as_bytes(password));
        FS_ASSIGN(settings.smtp.plain, fields.boolean("plain", false));
        settings.smtp.authority_pem = settings.authority_pem;
        settings.smtp.timeout_us = kTimeoutUs;
        if (settings.smtp.plain && !settings.smtp.user.empty())
            return fail(Code::kInvalidArgument,
                        "settings: a password is not sent without TLS (plain)",
                        "leave out plain, or user and password");
        return settings;
    }

    Status send(const NotifierRecord& notifier, const std::vector<EventRecord>& events) {
        FS_ASSIGN(const Settings settings, settings_of(notifier.kind, notifier.settings_file));
        const NotifyContext context{vault.info().vault_id, notifier.name, clock.now()};
        if (notifier.kind == NotifierKind::kMail) {
            uint8_t id[12];
            random.fill(id);
            const auto to = split_addresses(notifier.target);
            return send_mail(settings.smtp, settings.from, to,
                             mail_message(context, settings.from, to, events, to_hex(id)), ending);
        }
        HttpClientOptions options;
        options.authority_pem = settings.authority_pem;
        options.timeout_us = kTimeoutUs;
        options.max_body_bytes = 64u << 10;
        HttpClient client(options);
        {
            const std::lock_guard hold(client_mutex);
            if (ending) return fail(Code::kCancelled, "the vault ends");
            asking.insert(&client);
        }
        const Status posted = post_webhook(client, settings.secret, notifier.target,
                                           webhook_body(context, events), context.now);
        const std::lock_guard hold(client_mutex);
        asking.erase(&client);
        return posted;
    }

    // Whoever is due, with what happened since.
    Status tell(const NotifierRecord& notifier) {
        Pace& pace = paces[notifier.name];
        if (clock.steady_us() < pace.next_us) return {};
        std::vector<EventRecord> wanted;
        uint64_t cursor = notifier.cursor;
        while (wanted.size() < kEventsAMessage) {
            FS_ASSIGN(const auto page,
                      list_events_after(vault.database(), cursor, kEventsAMessage - wanted.size()));
            if (page.empty()) break;
            for (const EventRecord& event : page)
                if (wants(notifier, event)) wanted.push_back(event);
            cursor = page.back().id;
        }
        if (wanted.empty()) {
            if (cursor == notifier.cursor) return {};
            return notifier_told(vault.database(), notifier.name, cursor, false);
        }
        const Status sent = send(notifier, wanted);
        const int64_t now_us = clock.steady_us();
        if (ending) return {};
        if (sent) {
            pace.retry_us = 0;
            pace.next_us =
                now_us + (notifier.kind == NotifierKind::kMail ? kMailPauseUs : kWebhookPauseUs);
            if (pace.said)
                vault.event(Severity::kInformation, "notifier-goes-on", nullptr,
                            fmt::format("'{}' is told again", notifier.name));
            pace.said = false;
            return notifier_told(vault.database(), notifier.name, cursor, true);
        }
        pace.retry_us = std::clamp(pace.retry_us * 2, kRetryFirstUs, kRetryMaxUs);
        pace.next_us = now_us + pace.retry_us;
        const Error& error = sent.error();
        FS_TRY(notifier_failed(vault.database(), notifier.name,
                               {error.code(), error.what(), error.remedy()}));
        if (!pace.said && notifier.failing_since.us != 0 &&
            clock.now().us - notifier.failing_since.us > kFailingUs) {
            pace.said = true;
            vault.event(Severity::kWarning, "notifier-failing", nullptr,
                        fmt::format("'{}' has not been told since {}: {}", notifier.name,
                                    to_rfc3339(notifier.failing_since), error.what()),
                        "nothing is lost: it is told when it can be; " + error.remedy());
        }
        return {};
    }
};

Notifications::Notifications(Vault& vault, FileSystem& files, Clock& clock, Random& random,
                             int64_t tick_interval_us)
    : impl_(new Impl(vault, files, clock, random)) {
    if (tick_interval_us == 0) return;
    impl_->ticker = std::make_unique<ThreadExecutor>("fs-notify");
    auto round = std::make_shared<std::function<void()>>();
    *round = [this, weak = std::weak_ptr(round), tick_interval_us] {
        tick();
        if (auto again = weak.lock())
            impl_->ticker->post_after_us(tick_interval_us, [again] { (*again)(); });
    };
    impl_->ticker->post_after_us(tick_interval_us, [round] { (*round)(); });
}

Notifications::~Notifications() {
    {
        const std::lock_guard hold(impl_->client_mutex);
        impl_->ending = true;
        for (HttpClient* client : impl_->asking) client->cancel();
    }
    if (impl_->ticker) impl_->ticker->stop();
}

Result<NotifierRecord> Notifications::add(const AddNotifierRequest& request) {
    FS_TRY(check_notifier_name(request.name));
    NotifierRecord record;
    record.name = request.name;
    FS_ASSIGN(record.kind, notifier_kind_from_name(request.kind));
    record.target = request.target;
    record.settings_file = request.settings_file;
    const auto least = severity_from_name(request.least);
    if (!least)
        return fail(Code::kInvalidArgument,
                    fmt::format("severity: there is no '{}'", request.least.substr(0, 64)),
                    "use information, warning or critical");
    record.least = *least;
    if (record.settings_file.empty() || record.settings_file[0] != '/')
        return fail(Code::kInvalidArgument, "settings: must be an absolute path",
                    "a file on the vault's machine");
    if (record.kind == NotifierKind::kWebhook) {
        // "http://127.0.0.1:x@host/" is another host's.
        const size_t host = record.target.find("//");
        const bool has_user =
            host != std::string::npos &&
            record.target.substr(0, record.target.find_first_of("/?#", host + 2)).find('@') !=
                std::string::npos;
        const bool loopback = (record.target.starts_with("http://127.0.0.1:") ||
                               record.target.starts_with("http://localhost:")) &&
                              !has_user;
        if ((!record.target.starts_with("https://") && !loopback) ||
            record.target.find_first_of(" \r\n\t") != std::string::npos)
            return fail(Code::kInvalidArgument, "target: a webhook is an https:// URL");
    } else if (split_addresses(record.target).empty() ||
               !std::ranges::all_of(split_addresses(record.target), [](const std::string& one) {
                   return one.find('@') != std::string::npos &&
                          one.find_first_of(" <>\r\n\t") == std::string::npos;
               })) {
        return fail(Code::kInvalidArgument, "target: mail goes to addresses, separated by commas");
    }
    FS_TRY(impl_->settings_of(record.kind, record.settings_file));
    return add_notifier(impl_->vault.database(), record);
}

Result<std::vector<NotifierRecord>> Notifications::list() {
    return list_notifiers(impl_->vault.database());
}

Status Notifications::remove(const std::string& name) {
    const std::lock_guard hold(impl_->work);
    impl_->paces.erase(name);
    return remove_notifier(impl_->vault.database(), name);
}

Status Notifications::test(const std::string& name) {
    FS_ASSIGN(const NotifierRecord notifier, get_notifier(impl_->vault.database(), name));
    EventRecord event;
    event.time = impl_->clock.now();
    event.code = "notifier-test";
    event.cause = "somebody tries whether this notifier works";
    return impl_->send(notifier, {event});
}

void Notifications::tick() {
    auto notifiers = list_notifiers(impl_->vault.database());
    if (!notifiers)
        return log::warn("vault", about(notifiers.error()), "notifiers: {}",
                         notifiers.error().to_string());
    for (const NotifierRecord& notifier : *notifiers) {
        if (impl_->ending) return;
        const std::lock_guard hold(impl_->work);
        if (auto told = impl_->tell(notifier); !told)
            log::warn("vault", about(told.error()), "notifier '{}': {}", notifier.name,
                      told.error().to_string());
    }
}

}  // namespace farshore
