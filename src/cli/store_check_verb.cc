#include "cli/store_check_verb.h"

#include <ostream>

#include "cli/client_verbs.h"
#include "cli/format.h"
#include "meta/json_fields.h"
#include "os/real.h"
#include "store/open_store.h"
#include "store/store_check.h"

namespace farshore {
namespace {

Result<StoreCheckReport> check(const StoreCheckArguments& arguments) {
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
    FS_ASSIGN(const StoreSettings settings,
              load_store_settings(files, arguments.location, arguments.settings));
    // An empty place is looked at as well, but a directory is not made.
    FS_ASSIGN(const StoreLocation location, parse_store_location(arguments.location));
    if (!location.remote()) FS_TRY(files.list(location.directory));
    FS_ASSIGN(const auto store, open_store(files, clock, random, settings, true));
    StoreCheckOptions options;
    options.location = arguments.location;
    return check_store(*store, clock, random, options);
}

void add_number(Json& json, const char* name, const auto& value) {
    if (value) json[name] = *value;
}

Json document_of(const StoreCheckReport& report) {
    Json list = Json::array();
    for (const StoreFinding& finding : report.findings) {
        Json one{{"result", std::string(finding_result_name(finding.result))},
                 {"subject", finding.subject},
                 {"what", finding.what}};
        if (!finding.remedy.empty()) one["remedy"] = finding.remedy;
        list.push_back(std::move(one));
    }
    Json document{{"fit", report.fit()}, {"findings", std::move(list)}};
    add_number(document, "put_p50_us", report.put_p50_us);
    add_number(document, "put_p99_us", report.put_p99_us);
    add_number(document, "get_p50_us", report.get_p50_us);
    add_number(document, "get_p99_us", report.get_p99_us);
    add_number(document, "put_bytes_per_s", report.put_bytes_per_s);
    add_number(document, "get_bytes_per_s", report.get_bytes_per_s);
    return document;
}

}  // namespace

Result<Json> store_check_document(const StoreCheckArguments& arguments) {
    FS_ASSIGN(const StoreCheckReport report, check(arguments));
    return document_of(report);
}

int run_store_check(CliEnvironment& environment, const StoreCheckArguments& arguments, bool json) {
    auto report = check(arguments);
    if (!report) return print_error(environment, report.error(), json);
    const bool fit = report->fit();
    if (json) {
        *environment.out << dump_json(document_of(*report)) << std::endl;
    } else {
        Table table({{"Result"}, {"Check"}, {"What"}});
        for (const StoreFinding& finding : report->findings)
            table.add(
                {std::string(finding_result_name(finding.result)), printable(finding.subject),
                 printable(finding.what + (finding.remedy.empty() ? "" : "; " + finding.remedy))});
        *environment.out << table.to_string()
                         << (fit ? "The store is fit for use.\n"
                                 : "The store is not fit for use.\n")
                         << std::flush;
    }
    return fit ? 0 : code_exit_status(Code::kUnsupported);
}

}  // namespace farshore
