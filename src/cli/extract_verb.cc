#include "cli/extract_verb.h"

#include <fmt/core.h>

#include <ostream>

#include "cli/client_verbs.h"
#include "cli/format.h"
#include "extract/extract.h"
#include "meta/json_fields.h"

namespace farshore {

int run_extract(CliEnvironment& environment, const ExtractArguments& arguments, bool json) {
    ExtractOptions options;
    options.store = arguments.store;
    options.store_settings = arguments.store_settings;
    options.key_file = arguments.key_file;
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
