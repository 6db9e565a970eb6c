#include "cli/serve_common.h"

#include <unistd.h>

#include <array>
#include <cstdio>

#include "agent/agent.h"
#include "base/weekly_windows.h"
#include "cli/serve.h"
#include "os/log.h"
#include "os/process.h"
#include "os/real.h"

namespace farshore {

Status set_up_server(const LogChoice& choice) {
    log::Options options;
    if (!choice.level.empty()) {
        FS_ASSIGN(options.level, log::level_from_name(choice.level));
    }
    if (!choice.format.empty()) {
        FS_ASSIGN(options.json, log::json_from_name(choice.format));
    }
    FS_TRY(log::set_up(options));
    (void)raise_descriptor_limit();
    return {};
}

Result<std::string> remember_authority(FileSystem& files, const std::string& data,
                                       const std::string& ca_file) {
    const std::string kept = data + "/authority.crt";
    if (ca_file.empty()) {
        auto known = read_whole_file(files, kept, 1u << 20);
        if (!known)
            return fail(Code::kInvalidArgument, "the vault's authority is not known here",
                        "name its certificate with --ca at the first start");
        return to_text(*known);
    }
    FS_ASSIGN(Bytes given, read_whole_file(files, ca_file, 1u << 20));
    FS_TRY(write_file_durably(files, kept, given, FileAccess::kPublic));
    return to_text(given);
}

Result<std::string> read_token(FileSystem& files, const std::string& token_file) {
    if (token_file.empty())
        return fail(
            Code::kInvalidArgument, "this one is not enrolled yet",
            "make a token with 'farshore token create' and name its file with --token-file");
    FS_ASSIGN(Bytes raw, read_whole_file(files, token_file, 4096));
    std::string token = to_text(raw);
    while (!token.empty() && (token.back() == '\n' || token.back() == ' ')) token.pop_back();
    return token;
}

std::string party_name(const std::string& given) {
    if (!given.empty()) return given;
    std::array<char, 65> host{};
    if (::gethostname(host.data(), host.size() - 1) != 0) return {};
    return host.data();
}

void apply_bounds(const CaptureBounds& bounds, AgentOptions& agent) {
    agent.ring_bytes = bounds.ring_mib << 20;
    agent.spill_bytes = bounds.spill_mib << 20;
    agent.trace_ring_bytes = bounds.trace_ring_kib << 10;
    agent.shared_directory = bounds.shared_directory;
    agent.rest_limits.freeze_us = int64_t{bounds.freeze_limit_s} * 1'000'000;
    agent.rest_limits.script_us = int64_t{bounds.script_limit_s} * 1'000'000;
}

int exit_code_of(const Status& status) {
    if (status) return 0;
    std::fprintf(stderr, "farshore: %s\n", status.error().to_string().c_str());
    return code_exit_status(status.error().code());
}

Result<std::string> find_time_zone(const std::string& wanted, FileSystem& files) {
    if (!wanted.empty()) {
        FS_TRY(check_time_zone(wanted));
        return wanted;
    }
    if (auto kept = read_whole_file(files, "/etc/timezone")) {
        std::string name(as_text(*kept));
        while (!name.empty() && (name.back() == '\n' || name.back() == ' ')) name.pop_back();
        if (check_time_zone(name)) return name;
    }
    return "UTC";
}

}  // namespace farshore
