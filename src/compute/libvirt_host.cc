#include "compute/libvirt_host.h"

#include <fmt/core.h>
#include <libvirt/virterror.h>

#include <chrono>
#include <condition_variable>
#include <optional>
#include <thread>

#include "base/text.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore {
namespace {

constexpr int kKeepAliveS = 5;
constexpr unsigned kKeepAlivesMissed = 3;
// A daemon that could not be reached is not asked again at once.
constexpr int64_t kAgainUs = 2'000'000;
// So long a daemon may take until it has let us in.
constexpr int64_t kDialUs = 60'000'000;
constexpr int kMaxAbandoned = 4;

// libvirt's clients need a loop that looks after their sockets: keep-alives and streams. One for
// the process, for ever.
void start_event_loop() {
    static const bool started = [] {
        if (virInitialize() != 0) return false;
        // Errors are ours to tell, not libvirt's to print.
        virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
        if (virEventRegisterDefaultImpl() != 0) return false;
        std::thread([] {
            while (true)
                if (virEventRunDefaultImpl() < 0) pause_ms(100);
        }).detach();
        return true;
    }();
    FS_CHECK(started);
}

Code code_of(const virError& error, const std::string& words) {
    const auto says = [&](const char* part) { return words.find(part) != std::string::npos; };
    switch (error.code) {
        case VIR_ERR_NO_DOMAIN:
        case VIR_ERR_NO_NETWORK:
        case VIR_ERR_NO_INTERFACE:
            return Code::kNotFound;
        case VIR_ERR_AUTH_FAILED:
        case VIR_ERR_AUTH_CANCELLED:
        case VIR_ERR_AUTH_UNAVAILABLE:
            return Code::kUnauthenticated;
        case VIR_ERR_ACCESS_DENIED:
        case VIR_ERR_OPERATION_DENIED:
            return Code::kForbidden;
        case VIR_ERR_NO_SUPPORT:
        case VIR_ERR_CONFIG_UNSUPPORTED:
        case VIR_ERR_OPERATION_UNSUPPORTED:
        case VIR_ERR_ARGUMENT_UNSUPPORTED:
        case VIR_ERR_XML_ERROR:
            return Code::kUnsupported;
        case VIR_ERR_DOM_EXIST:
        case VIR_ERR_NETWORK_EXIST:
            return Code::kAlreadyExists;
        case VIR_ERR_AGENT_UNRESPONSIVE:
            return Code::kTimeout;
        case VIR_ERR_NO_MEMORY:
            return Code::kLimitReached;
        case VIR_ERR_RPC:
        case VIR_ERR_NO_CONNECT:
        case VIR_ERR_INVALID_CONN:
        case VIR_ERR_GNUTLS_ERROR:
            return Code::kUnavailable;
        case VIR_ERR_INTERNAL_ERROR:
            if (says("client socket is closed") || says("keepalive timeout"))
                return Code::kUnavailable;
            break;
        case VIR_ERR_SYSTEM_ERROR:
            if (error.domain == VIR_FROM_RPC || error.domain == VIR_FROM_REMOTE)
                return Code::kUnavailable;
            break;
        default:
            break;
    }
    return says("Cannot allocate memory") ? Code::kLimitReached : Code::kGuestFailed;
}

Error error_of(const std::string& host, const std::string& context) {
    const virError* const error = virGetLastError();
    if (error == nullptr)
        return Error(Code::kUnavailable,
                     fmt::format("compute host '{}': {}: libvirt does not say why", host, context));
    const std::string words = plain_text(
        std::string(error->message == nullptr ? "no reason given" : error->message).substr(0, 600));
    const Code code = code_of(*error, words);
    return Error(code, fmt::format("compute host '{}': {}: {}", host, context, words),
                 code == Code::kUnavailable
                     ? "`farshore compute check " + host + "` shows whether the host can be reached"
                     : std::string());
}

}  // namespace

// ---- the connection --------------------------------------------------------------------------

// Outlives the host's object: a thread that dials cannot be stopped.
struct LibvirtHost::Shared {
    std::string name, uri;
    std::mutex mutex;
    std::condition_variable changed;
    LibvirtConnection connection;  // guarded by mutex, like all below
    bool dialling = false;
    uint64_t round = 0;    // of dialling
    int abandoned = 0;     // rounds that have not ended, and are not waited for any more
    int64_t since_us = 0;  // of dialling, by the steady clock
    int64_t again_us = 0;  // not before, by the steady clock
    std::optional<Error> last;

    static void dial(const std::shared_ptr<Shared>& shared, uint64_t round) {
        LibvirtConnection made(virConnectOpenAuth(shared->uri.c_str(), nullptr, 0));
        std::optional<Error> error;
        if (made)
            // A daemon that knows no keep-alives is as old as 2011.
            (void)virConnectSetKeepAlive(made.get(), kKeepAliveS, kKeepAlivesMissed);
        else
            error = error_of(shared->name, "it cannot be reached");
        // However libvirt calls it: that nobody is there is no fault of the machine's.
        if (error && error->code() != Code::kUnauthenticated)
            error = Error(Code::kUnavailable, error->what(), error->remedy());
        const std::lock_guard lock(shared->mutex);
        if (round != shared->round) {
            --shared->abandoned;
            return;
        }
        shared->dialling = false;
        shared->again_us = RealClock().steady_us() + kAgainUs;
        shared->connection = std::move(made);
        shared->last = std::move(error);
        shared->changed.notify_all();
    }
};

LibvirtHost::LibvirtHost(std::string name, std::string uri)
    : name_(name), shared_(std::make_shared<Shared>()) {
    start_event_loop();
    shared_->name = std::move(name);
    shared_->uri = std::move(uri);
}

LibvirtHost::~LibvirtHost() = default;

Error LibvirtHost::error(const std::string& context) const { return error_of(name_, context); }

Result<LibvirtConnection> LibvirtHost::connect(int patience_ms) {
    std::unique_lock lock(shared_->mutex);
    while (true) {
        if (virConnect* const now = shared_->connection.get();
            now != nullptr && virConnectIsAlive(now) == 1) {
            (void)virConnectRef(now);
            return LibvirtConnection(now);
        }
        shared_->connection.reset();
        const int64_t now_us = RealClock().steady_us();
        // Keep-alives begin with the connection: one that is never made is not waited for for ever.
        if (shared_->dialling && now_us - shared_->since_us > kDialUs &&
            shared_->abandoned < kMaxAbandoned) {
            ++shared_->round;
            ++shared_->abandoned;
            shared_->dialling = false;
        }
        if (!shared_->dialling) {
            if (now_us < shared_->again_us)
                return fail(shared_->last.value_or(Error(
                    Code::kUnavailable, fmt::format("compute host '{}' has hung up", name_))));
            shared_->dialling = true;
            shared_->since_us = RealClock().steady_us();
            std::thread(&Shared::dial, shared_, shared_->round).detach();
        }
        // From its beginning: a host that is silent does not keep one caller after the other.
        const std::chrono::microseconds left(shared_->since_us + int64_t{patience_ms} * 1000 -
                                             RealClock().steady_us());
        if (shared_->changed.wait_for(lock, left) == std::cv_status::timeout && shared_->dialling)
            return fail(
                Code::kUnavailable,
                fmt::format("compute host '{}' does not answer within {} ms", name_, patience_ms),
                "`farshore compute check " + name_ + "` shows whether the host can be reached");
        if (shared_->last && !shared_->dialling && !shared_->connection)
            return fail(*shared_->last);
    }
}

Result<LibvirtDomain> LibvirtHost::domain(const std::string& domain, int patience_ms) {
    FS_ASSIGN(const LibvirtConnection connection, connect(patience_ms));
    LibvirtDomain found(virDomainLookupByName(connection.get(), domain.c_str()));
    if (!found) return fail(error(fmt::format("domain {}", domain)));
    return found;
}

}  // namespace farshore
