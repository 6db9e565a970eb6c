#include "compute/guest_freezer.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "compute/guest_agent.h"
#include "compute/json_read.h"
#include "compute/qmp_client.h"
#include "os/real.h"
#include "os/unix_stream.h"

namespace farshore {

using Json = nlohmann::json;

std::string socket_of_chardev(std::string_view filename) {
    for (const std::string_view prefix : {"disconnected:", "unix:"})
        if (filename.starts_with(prefix))
            filename.remove_prefix(prefix.size());
        else if (prefix == "unix:")
            return {};
    filename = filename.substr(0, filename.find(",server"));
    filename = filename.substr(0, filename.find(" <->"));
    if (!filename.starts_with('/') || filename.size() > kMaxUnixPathBytes) return {};
    return std::string(filename);
}

Result<std::string> find_guest_agent(QmpClient& qmp) {
    std::string chardev;
    for (const char* place : {"/machine/peripheral", "/machine/peripheral-anon"}) {
        auto devices = qmp.execute("qom-list", Json{{"path", place}});
        if (!devices) {
            if (devices.error().code() == Code::kNotFound) continue;
            return fail(devices.error());
        }
        if (!devices->is_array()) continue;
        for (const Json& device : *devices) {
            if (json_text(device, "type") != "child<virtserialport>") continue;
            const std::string path = std::string(place) + "/" + json_text(device, "name");
            const auto property = [&](const char* name) -> std::string {
                auto value = qmp.execute("qom-get", Json{{"path", path}, {"property", name}});
                return value && value->is_string() ? value->get<std::string>() : std::string();
            };
            if (property("name") == "org.qemu.guest_agent.0") chardev = property("chardev");
        }
    }
    if (chardev.empty()) return std::string();
    FS_ASSIGN(const Json chardevs, qmp.execute("query-chardev"));
    if (chardevs.is_array())
        for (const Json& one : chardevs)
            if (json_text(one, "label") == chardev)
                return socket_of_chardev(json_text(one, "filename"));
    return std::string();
}

namespace {

constexpr int kConnectMs = 2'000, kThawMs = 5'000, kPollMs = 100;

// Nothing is ever written to it: readable means ended.
bool has_ended(int input) {
    pollfd question{input, POLLIN, 0};
    char byte = 0;
    return ::poll(&question, 1, kPollMs) > 0 && ::read(input, &byte, 1) <= 0;
}

// On a connection of its own: what came before may have left the other one with half an answer.
Result<int64_t> thaw_anew(const std::string& socket_path) {
    Result<int64_t> thawed = fail(Code::kInternal, "");
    for (int attempt = 0; attempt < 2; ++attempt) {
        auto agent = GuestAgent::connect(socket_path, kThawMs);
        thawed = agent ? agent->thaw(kThawMs) : tl::unexpected(agent.error());
        if (thawed) break;
    }
    return thawed;
}

}  // namespace

namespace {

// Of a machine that an earlier one may have left frozen.
Status thaw_leftover(const std::string& path) {
    auto agent = GuestAgent::connect(path, kThawMs);
    // A machine that is gone, or ends, has nothing frozen.
    if (!agent &&
        (agent.error().code() == Code::kNotFound || agent.error().code() == Code::kUnavailable))
        return {};
    if (!agent) return fail(agent.error());
    FS_ASSIGN(const bool frozen, agent->is_frozen(kThawMs));
    if (frozen) FS_TRY(agent->thaw(kThawMs));
    return {};
}

// `left`: something that we froze may be frozen still.
Status freeze_and_thaw(const GuestFreezeOptions& options, int input, int output, bool& left) {
    RealClock clock;
    const std::string& path = options.socket_path;
    const int64_t until_us = clock.steady_us() + options.timeout_ms * 1000;
    int64_t count = 0;
    {
        FS_ASSIGN(GuestAgent agent, GuestAgent::connect(path, kConnectMs));
        FS_ASSIGN(const bool frozen, agent.is_frozen(kConnectMs));
        if (frozen)
            return fail(Code::kWrongState, "the machine's file systems are frozen already",
                        "wait until whoever froze them thaws them");
        left = true;
        auto froze = agent.freeze(
            static_cast<int>(std::max<int64_t>((until_us - clock.steady_us()) / 1000, 1)));
        if (!froze) {
            // It may be about to, or half done.
            left = froze.error().code() != Code::kUnsupported && !thaw_anew(path);
            if (left) return fail(froze.error().with_context("the machine may be frozen"));
            return fail(froze.error());
        }
        count = *froze;
    }
    bool ended = false;
    if (count > 0 && ::write(output, "frozen\n", 7) == 7)
        while (!ended && clock.steady_us() < until_us) ended = has_ended(input);
    FS_ASSIGN(const int64_t thawed, thaw_anew(path));
    left = false;
    if (count <= 0)
        return fail(Code::kUnsupported, "the guest agent froze no file system",
                    "look at its configuration in the machine");
    if (!ended)
        return fail(Code::kTimeout,
                    fmt::format("thawed after {} ms, before it was told", options.timeout_ms),
                    "look for what keeps the agent or its disks busy");
    if (thawed <= 0)
        return fail(Code::kTimeout,
                    "the machine thawed its file systems by itself before the point",
                    "Windows does so after ten seconds; try again when less is being written");
    return {};
}

}  // namespace

Status freeze_guest_until_told(const GuestFreezeOptions& options, int input, int output) {
    if (options.thaw_only) return thaw_leftover(options.socket_path);
    bool left = false;
    Status status = freeze_and_thaw(options, input, output, left);
    if (!left) (void)!::write(output, "thawed\n", 7);
    return status;
}

}  // namespace farshore
