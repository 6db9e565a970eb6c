#include "cli/serve_check.h"

#include <fmt/core.h>

#include "base/bandwidth_limit.h"
#include "cli/serve_common.h"
#include "os/real.h"
#include "store/store_settings.h"

namespace farshore {
namespace {

Status check_store(FileSystem& files, const std::string& location, const std::string& settings) {
    if (location.empty()) return {};
    auto loaded = load_store_settings(files, location, settings);
    if (!loaded) return fail(loaded.error());
    return {};
}

Status check_file(FileSystem& files, const char* option, const std::string& path, size_t limit) {
    if (path.empty()) return {};
    auto text = read_whole_file(files, path, limit);
    if (!text) return fail(text.error().with_context(option));
    return {};
}

// Needs a certificate of the authority and a token at its first start only.
Status check_enrolment(FileSystem& files, const std::string& data, const std::string& ca_file,
                       const std::string& token_file) {
    FS_TRY(check_file(files, "--ca", ca_file, 1u << 20));
    FS_ASSIGN(const bool enrolled, files.exists(data + "/identity.crt"));
    if (enrolled) return {};
    return check_file(files, "--enrol-token-file", token_file, 4096);
}

// Windows that name no zone are in the machine's, so it counts as well.
Status check_limit(FileSystem& files, const std::string& bandwidth, const std::string& zone) {
    FS_ASSIGN(const std::string found, find_time_zone(zone, files));
    auto limit = BandwidthLimit::parse(bandwidth, found);
    if (!limit) return fail(limit.error().with_context("--bandwidth"));
    return {};
}

}  // namespace

Status check_options(const UpOptions& options) {
    PosixFileSystem files;
    FS_TRY(check_store(files, options.store, options.store_settings));
    return check_limit(files, options.bandwidth, options.time_zone);
}

Status check_options(const VaultServeOptions& options) { return check_options(options.common); }

Status check_options(const ApplianceServeOptions& options) {
    PosixFileSystem files;
    FS_TRY(check_enrolment(files, options.data, options.ca_file, options.token_file));
    FS_TRY(check_store(files, options.store, options.store_settings));
    return check_limit(files, options.bandwidth, options.time_zone);
}

Status check_options(const AgentServeOptions& options) {
    PosixFileSystem files;
    return check_enrolment(files, options.data, options.ca_file, options.token_file);
}

}  // namespace farshore
