#include "cli/catalog_verb.h"

#include <fmt/core.h>

#include <ostream>

#include "cli/client_verbs.h"
#include "cli/format.h"
#include "meta/json_fields.h"
#include "os/log.h"
#include "os/real.h"
#include "vault/catalog.h"
#include "vault/views.h"

namespace farshore {
namespace {

// What is in the database alone.
constexpr const char* kNotInTheStore[] = {
    "leases and holds: what they kept is let go at the window's end",
    "jobs, events and the marks of idle time",
    "policies, and where each machine's disks are captured: `farshore set`, `farshore protect`",
    "agents and appliances that were enrolled, and tokens: enrol them anew"};

Json item_document(const CatalogItem& item) {
    Json json{{"name", item.name}, {"id", item.id.to_string()}};
    if (item.set_aside) {
        json["set_aside"] = problem_view(*item.set_aside);
        return json;
    }
    const ReplicaStatus& status = item.status;
    if (status.oldest && status.newest)
        json["window"] = {{"oldest", point_view(*status.oldest, status.oldest_time)},
                          {"newest", point_view(*status.newest, status.newest_time)}};
    json["ranges"] = Json::array();
    for (const OfferedRange& range : item.ranges)
        json["ranges"].push_back({{"first", point_view(range.first, range.first_time)},
                                  {"last", point_view(range.last, range.last_time)}});
    json["gap_open"] = status.gap_open;
    json["named_points"] = item.named_points;
    json["disks"] = Json::array();
    for (const DiskSize& disk : status.disks)
        json["disks"].push_back({{"index", disk.disk}, {"size_bytes", disk.size_bytes}});
    json["segments"] = status.segments.v;
    json["stored_bytes"] = status.stored_bytes;
    json["written_bytes"] = status.written_bytes;
    return json;
}

std::string item_text(const CatalogItem& item) {
    if (item.set_aside)
        return key_values({{"Item", printable(item.name)},
                           {"Set aside", printable(item.set_aside->to_string())}});
    const ReplicaStatus& status = item.status;
    std::vector<std::pair<std::string, std::string>> rows{{"Item", printable(item.name)}};
    std::string disks;
    for (const DiskSize& disk : status.disks)
        disks += fmt::format("{}{}: {}", disks.empty() ? "" : ", ", disk.disk,
                             human_bytes(disk.size_bytes));
    rows.push_back({"Disks", disks.empty() ? "none" : disks});
    for (const OfferedRange& range : item.ranges)
        rows.push_back({"Points", fmt::format("{} to {}  {} to {}", human_count(range.first.v),
                                              human_count(range.last.v),
                                              human_time(to_rfc3339(range.first_time)),
                                              human_time(to_rfc3339(range.last_time)))});
    if (item.ranges.empty()) rows.push_back({"Points", "none"});
    rows.push_back({"Named", human_count(item.named_points)});
    if (status.gap_open)
        rows.push_back({"Gap", "open: its disks are compared when it is captured"});
    rows.push_back({"Stored", human_bytes(status.stored_bytes)});
    return key_values(rows);
}

}  // namespace

int run_rebuild_catalog(CliEnvironment& environment, const CatalogArguments& arguments, bool json) {
    if (auto quiet = log::set_up({.level = log::Level::kOff}); !quiet)  // the report says it all
        return print_error(environment, quiet.error(), json);
    PosixFileSystem files;
    RealClock clock;
    RealRandom random;
    VaultOptions options;
    options.data_directory = arguments.data;
    options.store_location = arguments.store;
    options.store_settings_file = arguments.store_settings;
    options.key_file = arguments.key_file;
    const auto report = rebuild_catalog(options, arguments.replace, files, clock, random);
    if (!report) return print_error(environment, report.error(), json);
    uint64_t aside = 0;
    for (const CatalogItem& item : report->items) aside += item.set_aside ? 1 : 0;
    if (json) {
        Json document{{"store_id", report->store_id},
                      {"items", Json::array()},
                      {"set_aside", aside},
                      {"not_in_the_store", Json::array()}};
        if (!report->moved_to.empty()) document["moved_to"] = report->moved_to;
        for (const CatalogItem& item : report->items)
            document["items"].push_back(item_document(item));
        for (const char* words : kNotInTheStore) document["not_in_the_store"].push_back(words);
        *environment.out << dump_json(document) << std::endl;
        return 0;
    }
    std::string text;
    for (const CatalogItem& item : report->items) text += item_text(item) + "\n";
    text +=
        fmt::format("{} items are back, {} are set aside.\n", report->items.size() - aside, aside);
    if (!report->moved_to.empty())
        text += fmt::format("The database that was there is {}.\n", printable(report->moved_to));
    text += "Not in the store, and so not back:\n";
    for (const char* words : kNotInTheStore) text += fmt::format("  {}\n", words);
    *environment.out << text << std::flush;
    return 0;
}

int run_migrate_database(CliEnvironment& environment, const std::string& data,
                         const std::string& to, bool json) {
    if (auto quiet = log::set_up({.level = log::Level::kOff}); !quiet)
        return print_error(environment, quiet.error(), json);
    PosixFileSystem files;
    RealClock clock;
    const auto report = migrate_database(data, to, files, clock);
    if (!report) return print_error(environment, report.error(), json);
    if (json) {
        *environment.out << dump_json({{"database", report->place},
                                       {"tables", report->tables},
                                       {"rows", report->rows},
                                       {"moved_to", report->moved_to}})
                         << std::endl;
        return 0;
    }
    *environment.out << fmt::format(
        "{} rows of {} tables are in {}.\nThe file is {} now. Start the vault with --database.\n",
        human_count(report->rows), report->tables, printable(report->place),
        printable(report->moved_to));
    return 0;
}

}  // namespace farshore
