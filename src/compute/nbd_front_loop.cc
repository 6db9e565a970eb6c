#include "compute/nbd_front_loop.h"

#include <fmt/core.h>
#include <unistd.h>

#include <charconv>

#include "compute/json_read.h"
#include "compute/nbd_front_wire.h"
#include "os/log.h"
#include "os/real.h"
#include "os/unix_stream.h"

namespace farshore {
namespace {

constexpr const char* kPart = "nbd-front";
constexpr size_t kPortFileBytes = 64;

Status note_port(const std::string& run_directory, uint16_t port) {
    PosixFileSystem files;
    FS_ASSIGN(const ProcessKey self, key_of(::getpid()));
    return write_file_durably(
        files, nbd_front_file(run_directory, "port"),
        as_bytes(fmt::format("{} {} {}\n", port, self.pid, self.start_ticks)));
}

}  // namespace

Secret nbd_front_config_text(const NbdFrontConfig& config) {
    nlohmann::json json = {
        {"run_directory", config.run_directory},
        {"listen_address", config.listen_address},
        {"first_port", config.first_port},
        {"last_port", config.last_port},
        {"target_socket", config.target_socket},
        {"certificate", config.server.certificate_pem},
        {"key", as_text(config.server.key_pem.reveal())},
        {"authority", config.authority_pem},
        {"client_name", config.client_name},
    };
    const std::string text = json.dump();
    return Secret(as_bytes(text));
}

Result<NbdFrontConfig> parse_nbd_front_config(ByteView text) {
    const nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
    if (!json.is_object()) return fail(Code::kMalformed, "the front's configuration is not JSON");
    const auto port = [&](const char* key) {
        const uint64_t number = json_u64(json, key);
        return number <= 0xffff ? static_cast<uint16_t>(number) : uint16_t{0};
    };
    NbdFrontConfig config;
    config.run_directory = json_text(json, "run_directory");
    config.listen_address = json_text(json, "listen_address");
    config.first_port = port("first_port");
    config.last_port = port("last_port");
    config.target_socket = json_text(json, "target_socket");
    config.server.certificate_pem = json_text(json, "certificate");
    config.server.key_pem = Secret(as_bytes(json_text(json, "key")));
    config.authority_pem = json_text(json, "authority");
    config.client_name = json_text(json, "client_name");
    FS_TRY(check_nbd_front_config(config));
    return config;
}

Status check_nbd_front_config(const NbdFrontConfig& config) {
    if (config.run_directory.empty() || config.listen_address.empty())
        return fail(Code::kInvalidArgument, "a front needs a run directory and an address");
    if (config.first_port == 0 || config.first_port > config.last_port)
        return fail(Code::kInvalidArgument, fmt::format("a front cannot listen on ports {} to {}",
                                                        config.first_port, config.last_port));
    if (config.target_socket.empty() || config.target_socket.size() > kMaxUnixPathBytes)
        return fail(
            Code::kInvalidArgument,
            fmt::format("the socket path '{}' has {} bytes, the system takes 1 to {}",
                        config.target_socket, config.target_socket.size(), kMaxUnixPathBytes),
            "use a shorter run directory");
    if (config.client_name.empty() || config.client_name.size() > kMaxPartyNameBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is no name of a client", config.client_name));
    FS_TRY(inspect_certificate(config.authority_pem));
    return check_credentials(config.server);
}

Result<NbdFrontPort> read_nbd_front_port(const std::string& run_directory) {
    PosixFileSystem files;
    const std::string path = nbd_front_file(run_directory, "port");
    FS_ASSIGN(const Bytes bytes, read_whole_file(files, path, kPortFileBytes));
    NbdFrontPort found;
    const std::string text = to_text(bytes);
    const char* at = text.data();
    const char* const end = at + text.size();
    const auto take = [&](auto& number, char behind) {
        const auto [rest, error] = std::from_chars(at, end, number);
        if (error != std::errc() || rest == end || *rest != behind) return false;
        at = rest + 1;
        return true;
    };
    if (take(found.port, ' ') && take(found.pid, ' ') && take(found.start_ticks, '\n') &&
        at == end && found.port != 0)
        return found;
    return fail(Code::kMalformed, fmt::format("{} is no 'PORT PID START'", path),
                "remove it when no machine runs over this front");
}

Result<std::unique_ptr<TlsGate>> serve_nbd_front(const NbdFrontConfig& config) {
    FS_ASSIGN(auto context, TlsContext::make(config.authority_pem, config.server));
    TlsGateOptions options{.host = config.listen_address,
                           .ports = {},
                           .target_socket = config.target_socket,
                           .client_name = config.client_name};
    const auto before = read_nbd_front_port(config.run_directory);
    if (!before && before.error().code() != Code::kNotFound) return fail(before.error());
    const bool again =
        before && before->port >= config.first_port && before->port <= config.last_port;
    if (again)
        options.ports = {before->port};
    else
        for (uint32_t port = config.first_port; port <= config.last_port; ++port)
            options.ports.push_back(static_cast<uint16_t>(port));

    auto limit = std::make_shared<log::Limit>();
    auto gate = TlsGate::start(
        options, std::move(context), [] { return std::make_unique<NbdFrontWire>(); },
        [limit](const std::string& peer, const std::string& why) {
            limit->warn(kPart, "{} is refused: {}", peer, why);
        });
    if (!gate && gate.error().code() == Code::kLimitReached) {
        if (again)
            return fail(Code::kUnavailable,
                        fmt::format("port {} of {}, on which this front listened before and that "
                                    "its clients know, is taken by another program",
                                    before->port, config.listen_address),
                        "end that program (ss -ltnp shows it), or clean this front up for a new "
                        "port");
        return fail(Code::kLimitReached,
                    fmt::format("no port of {} to {} is free on {}", config.first_port,
                                config.last_port, config.listen_address),
                    "give a wider range of ports, or end what uses them (ss -ltnp shows it)");
    }
    if (!gate) return gate;
    FS_TRY(note_port(config.run_directory, (*gate)->port()));
    (*gate)->open();
    log::info(kPart, "listens on {} port {} for '{}', before {}", config.listen_address,
              (*gate)->port(), config.client_name, config.target_socket);
    return gate;
}

}  // namespace farshore
