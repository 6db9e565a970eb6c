#include "cli/extract_verb.h"

#include <fmt/core.h>

#include <ostream>

#include "cli/client_verbs.h"
#include "cli/format.h"
#include "codec/passphrase.h"
#include "extract/extract.h"
#include "keys/azure_key_vault.h"
#include "keys/key_source.h"
#include "meta/json_fields.h"
#include "os/real.h"
#include "os/secret_input.h"

namespace farshore {
namespace {

// Where the key comes from, in the extractor's own terms: it links nothing of the writer's, so it
// knows texts and passphrases, and asks whoever calls it for a key service.
Status use_key(const ExtractArguments& arguments, FileSystem& files, ExtractOptions& options) {
    options.key_file = arguments.key_file;
    options.passphrase_file = arguments.passphrase_file;
    options.private_key_file = arguments.private_key_file;
    const std::string& spec = arguments.key_source;
    if (spec.empty()) return {};
    const std::string_view kind = key_source_kind(spec);
    const std::string rest = spec.substr(std::min(spec.size(), kind.size() + 1));
    if (kind == "file") {
        options.key_file = rest;
    } else if (kind == "passphrase") {
        options.passphrase_file = rest;
    } else if (kind == "passphrase-prompt") {
        FS_ASSIGN(options.passphrase, ask_secret("Passphrase of the store's key: "));
    } else if (kind == "passphrase-fd") {
        FS_ASSIGN(const Secret text, read_secret_descriptor(std::atoi(rest.c_str())));
        options.passphrase = trim_passphrase(text.reveal());
    } else if (kind == "azure") {
        FS_ASSIGN(const Bytes text, read_whole_file(files, rest, 64u << 10));
        FS_ASSIGN(AzureKeyVaultSettings settings, parse_azure_settings(as_text(text)));
        auto service = std::make_shared<AzureKeyVault>(std::move(settings), files);
        options.unwrap_remote = [service](const std::string& key, ByteView sealed) {
            return service->unwrap(key, sealed);
        };
    } else {
        FS_ASSIGN(const auto source, make_key_source(spec, files));
        FS_ASSIGN(const KeyFile key, source->open("", {}));
        options.key_text = format_key_file(key);
    }
    return {};
}

}  // namespace

int run_extract(CliEnvironment& environment, const ExtractArguments& arguments, bool json) {
    ExtractOptions options;
    options.store = arguments.store;
    options.store_settings = arguments.store_settings;
    PosixFileSystem files;
    if (auto told = use_key(arguments, files, options); !told)
        return print_error(environment, told.error(), json);
    options.item = arguments.item;
    options.point = arguments.point;
    options.disk = static_cast<DiskIndex>(arguments.disk);
    options.out_path = arguments.out;
    options.replace_existing = arguments.force;
    const bool draws = environment.err_is_terminal && !json;
    size_t drawn = 0;
    uint64_t permille = UINT64_MAX;
    if (draws)
        options.progress = [&](uint64_t done, uint64_t total) {
            const uint64_t now = total == 0 ? 0 : done * 1000 / total;
            if (now == permille) return;
            permille = now;
            const std::string line = progress_line(static_cast<double>(now) / 1000, -1,
                                                   fmt::format("{} of {} objects", done, total),
                                                   environment.columns - 1);
            drawn = std::max(drawn, display_width(line));
            *environment.err << '\r' << line << std::flush;
        };
    ExtractReport report;
    auto status = extract(options, &report);
    if (drawn != 0) *environment.err << '\r' << std::string(drawn, ' ') << '\r' << std::flush;
    if (!status) return print_error(environment, status.error(), json);
    if (json) {
        Json document{
            {"sequence", report.sequence.v},       {"time", to_rfc3339(report.time)},
            {"disk_bytes", report.disk_bytes},     {"written_bytes", report.written_bytes},
            {"objects_read", report.objects_read}, {"out", arguments.out}};
        if (!report.warning.empty()) document["warning"] = report.warning;
        *environment.out << dump_json(document) << std::endl;
        return 0;
    }
    *environment.out << fmt::format("Disk {} at {}  {}: {} in {}\n", arguments.disk,
                                    human_count(report.sequence.v),
                                    human_time(to_rfc3339(report.time)),
                                    human_bytes(report.disk_bytes), arguments.out)
                     << std::flush;
    if (!report.warning.empty())
        *environment.err << "farshore: warning: " << printable(report.warning) << std::endl;
    return 0;
}

}  // namespace farshore
