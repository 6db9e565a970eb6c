// `farshore files`: each disk of the point is exported, libguestfs's machine looks at them, and
// what it finds is shown or copied.
#include <fmt/core.h>

#include <algorithm>
#include <atomic>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"
#include "compute/guest_files.h"
#include "os/real.h"

namespace farshore {
namespace {

constexpr int64_t kRenewUs = 15'000'000;  // an export that nobody renews ends after 60 s
constexpr size_t kMostEntries = 200'000;  // of one directory
constexpr size_t kMostFiles = 5'000'000;
constexpr size_t kMostDepth = 200;
constexpr size_t kMostPathBytes = 4096;

const char* kind_name(GuestFileKind kind) {
    switch (kind) {
        case GuestFileKind::kFile:
            return "file";
        case GuestFileKind::kDirectory:
            return "directory";
        case GuestFileKind::kLink:
            return "link";
        case GuestFileKind::kOther:
            break;
    }
    return "other";
}

Json entry_document(const GuestEntry& entry) {
    Json json{{"name", entry.name},
              {"kind", kind_name(entry.kind)},
              {"mode", fmt::format("{:04o}", entry.mode)},
              {"size_bytes", entry.size_bytes},
              {"modified", to_rfc3339(entry.modified)}};
    if (!entry.link_target.empty()) json["target"] = entry.link_target;
    return json;
}

// A name in a directory, and nothing that leads elsewhere.
bool is_plain_name(const std::string& name) {
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
           name.find('\0') == std::string::npos;
}

std::string below(const std::string& directory, const std::string& name) {
    return directory.ends_with('/') ? directory + name : directory + "/" + name;
}

Status check_path(const std::string& path) {
    if (path.empty() || path[0] != '/' || path.size() > kMostPathBytes)
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is no path in the machine", path.substr(0, 200)),
                    fmt::format("absolute, at most {} bytes", kMostPathBytes));
    return {};
}

// The exports of a point's disks for as long as this is there, renewed beside whatever blocks.
class Exports {
  public:
    Exports(CliEnvironment& environment, const LocationOptions& options)
        : environment_(environment), options_(options) {}
    ~Exports() {
        ending_ = true;
        if (renewer_) {
            // One that cannot be ended ends by itself.
            (void)renewer_->run_sync([this] {
                for (const std::string& id : ids_) (void)call("DELETE", "/v1/exports/" + id, "");
            });
            renewer_->stop();
        }
        if (!directory_.empty()) {
            for (const std::string& socket : sockets_) (void)files_.remove(socket);
            (void)files_.remove(directory_);
        }
    }

    // All disks of the point at the one sequence that it is, or `only` one.
    Status start(const std::string& item, const std::string& copy, const std::string& point,
                 const std::optional<uint64_t>& only) {
        FS_ASSIGN(const ServerLocation location, find_server(environment_, options_));
        FS_ASSIGN(transport_, environment_.connect(location));
        FS_ASSIGN(const Json resolved,
                  call("GET",
                       item_target(item, "/points/" + url_encode(point) +
                                             (copy.empty() ? "" : "?copy=" + url_encode(copy))),
                       ""));
        sequence_ = count_of(resolved, "sequence");
        for (const Json& disk : member(resolved, "disks"))
            if (disk.is_number_unsigned() && (!only || disk.get<uint64_t>() == *only))
                disks_.push_back(disk.get<uint64_t>());
        if (disks_.empty())
            return fail(Code::kNotFound,
                        only ? fmt::format("the point has no disk {}", *only)
                             : std::string("the point has no disks"),
                        "`farshore points` shows which disks a point has");
        FS_TRY(make_directory());
        renewer_ = std::make_unique<ThreadExecutor>("fs-renew");
        for (const uint64_t disk : disks_) {
            const std::string socket = fmt::format("{}/disk{}.sock", directory_, disk);
            FS_ASSIGN(const Json made, call("POST", item_target(item, "/exports"),
                                            dump_json({{"point", std::to_string(sequence_)},
                                                       {"disk", disk},
                                                       {"copy", copy},
                                                       {"socket", socket}})));
            ids_.push_back(url_encode(text_of(made, "id")));
            sockets_.push_back(socket);
        }
        schedule();
        return {};
    }

    const std::vector<std::string>& sockets() const { return sockets_; }
    const std::vector<uint64_t>& disks() const { return disks_; }
    uint64_t sequence() const { return sequence_; }

  private:
    Status make_directory() {
        std::string parent = environment_.variable("TMPDIR");
        if (parent.empty() || parent[0] != '/') parent = "/tmp";
        RealRandom random;
        directory_ = fmt::format("{}/farshore-{:016x}", parent, random.next_u64());
        return files_.make_directories(directory_);
    }
    // The first calls, and those of the renewer, one after the other.
    Result<Json> call(const std::string& method, const std::string& target,
                      const std::string& body) {
        FS_ASSIGN(const std::string answer, transport_->call(method, target, body, 90));
        if (answer.empty()) return Json();
        return parse_json(answer, "the server's answer", 64u << 20);
    }
    void schedule() {
        renewer_->post_after_us(kRenewUs, [this] {
            if (ending_) return;
            // One that is lost shows in what is read from it.
            for (const std::string& id : ids_) (void)call("GET", "/v1/exports/" + id, "");
            schedule();
        });
    }

    CliEnvironment& environment_;
    const LocationOptions& options_;
    PosixFileSystem files_;
    std::unique_ptr<ApiTransport> transport_;
    std::unique_ptr<ThreadExecutor> renewer_;
    std::atomic<bool> ending_{false};
    std::string directory_;
    uint64_t sequence_ = 0;
    std::vector<uint64_t> disks_;
    std::vector<std::string> ids_, sockets_;
};

// An open look at a point.
struct Look {
    std::unique_ptr<Exports> exports;
    std::unique_ptr<GuestFiles> guest;  // ends first

    static Result<Look> open(CliEnvironment& environment, const LocationOptions& options,
                             const FilesArguments& arguments) {
        Look look;
        look.exports = std::make_unique<Exports>(environment, options);
        FS_TRY(
            look.exports->start(arguments.name, arguments.copy, arguments.point, arguments.disk));
        GuestFilesOptions guest;
        guest.disk_sockets = look.exports->sockets();
        guest.emulate = arguments.emulate || environment.variable("FARSHORE_ACCEL") == "tcg";
        FS_ASSIGN(look.guest, GuestFiles::start(guest));
        return look;
    }
    Status mount(const FilesArguments& arguments) {
        std::string volume = arguments.volume;
        // With one disk it is the first that libguestfs has.
        if (arguments.partition) volume = guest_partition_name(0, *arguments.partition);
        return guest->mount(volume);
    }
};

// What `get` copies, with its bounds.
class Fetcher {
  public:
    Fetcher(GuestFiles& guest, const FilesArguments& arguments, CliEnvironment& environment)
        : guest_(guest), arguments_(arguments), environment_(environment) {}

    Status fetch(const GuestEntry& entry, const std::string& path, const std::string& local,
                 size_t depth) {
        if (environment_.pause(0)) return fail(Code::kCancelled, "interrupted");
        if (depth > kMostDepth || path.size() > kMostPathBytes)
            return fail(Code::kTooLarge, "directories lie too deep in one another: " + path);
        if (++entries_ > kMostFiles)
            return fail(Code::kTooLarge, fmt::format("there are more than {} files", kMostFiles));
        switch (entry.kind) {
            case GuestFileKind::kFile:
                return fetch_file(entry, path, local);
            case GuestFileKind::kDirectory:
                return fetch_directory(path, local, depth);
            default:
                skipped.push_back(path);
                return {};
        }
    }

    uint64_t files = 0, bytes = 0;
    std::vector<std::string> skipped;  // links, devices and the like

  private:
    Status fetch_file(const GuestEntry& entry, const std::string& path, const std::string& local) {
        if (entry.size_bytes > arguments_.max_bytes - std::min(bytes, arguments_.max_bytes))
            return fail(Code::kTooLarge,
                        fmt::format("with {} ({} bytes) more than {} bytes would be copied", path,
                                    entry.size_bytes, arguments_.max_bytes),
                        "raise --max-bytes, or name less");
        FS_ASSIGN(const bool there, local_.exists(local));
        if (there && !arguments_.force)
            return fail(Code::kAlreadyExists, fmt::format("'{}' is there", local),
                        "remove it, name another place, or replace it with --force");
        const std::string partial = local + ".partial";
        if (Status gone = local_.remove(partial); !gone && gone.error().code() != Code::kNotFound)
            return gone;
        // Made by us, and private: the library opens it.
        FS_TRY(local_.open(partial, OpenMode::kCreateNew));
        Status done = guest_.download(path, partial);
        if (done) done = local_.rename(partial, local);
        if (!done) {
            (void)local_.remove(partial);
            return done;
        }
        ++files;
        bytes += entry.size_bytes;
        return {};
    }

    Status fetch_directory(const std::string& path, const std::string& local, size_t depth) {
        FS_TRY(local_.make_directories(local));
        FS_ASSIGN(const auto entries, guest_.list(path, kMostEntries));
        for (const GuestEntry& entry : entries) {
            if (!is_plain_name(entry.name)) {
                skipped.push_back(below(path, entry.name));
                continue;
            }
            FS_TRY(fetch(entry, below(path, entry.name), below(local, entry.name), depth + 1));
        }
        return {};
    }

    GuestFiles& guest_;
    const FilesArguments& arguments_;
    CliEnvironment& environment_;
    PosixFileSystem local_;
    size_t entries_ = 0;
};

}  // namespace

int ClientVerbs::file_volumes(const FilesArguments& arguments) {
    auto look = Look::open(impl_->environment, impl_->options, arguments);
    if (!look) return impl_->failed(look.error());
    auto volumes = look->guest->volumes();
    if (!volumes) return impl_->failed(volumes.error());
    if (impl_->json) {
        Json json{{"sequence", look->exports->sequence()}, {"volumes", Json::array()}};
        for (const GuestVolume& volume : *volumes)
            json["volumes"].push_back({{"volume", volume.device},
                                       {"type", volume.type},
                                       {"size_bytes", volume.size_bytes},
                                       {"readable", volume.mountable()}});
        impl_->print(json);
        return 0;
    }
    Table table({{"VOLUME"}, {"TYPE"}, {"SIZE", Align::kRight}});
    for (const GuestVolume& volume : *volumes)
        table.add(
            {printable(volume.device), printable(volume.type), human_bytes(volume.size_bytes)});
    if (table.empty())
        impl_->note("No volumes.\n");
    else
        impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::list_files(const FilesArguments& arguments) {
    if (const Status path = check_path(arguments.path); !path) return impl_->failed(path.error());
    auto look = Look::open(impl_->environment, impl_->options, arguments);
    if (!look) return impl_->failed(look.error());
    const auto work = [&]() -> Result<std::vector<GuestEntry>> {
        FS_TRY(look->mount(arguments));
        FS_ASSIGN(const std::string real, look->guest->resolve(arguments.path));
        FS_ASSIGN(const GuestEntry entry, look->guest->entry(real));
        if (entry.kind != GuestFileKind::kDirectory) return std::vector<GuestEntry>{entry};
        return look->guest->list(real, kMostEntries);
    };
    auto entries = work();
    if (!entries) return impl_->failed(entries.error());
    if (impl_->json) {
        Json json{{"path", arguments.path},
                  {"sequence", look->exports->sequence()},
                  {"entries", Json::array()}};
        for (const GuestEntry& entry : *entries) json["entries"].push_back(entry_document(entry));
        impl_->print(json);
        return 0;
    }
    Table table({{"KIND"}, {"MODE"}, {"SIZE", Align::kRight}, {"MODIFIED"}, {"NAME"}});
    for (const GuestEntry& entry : *entries)
        table.add({kind_name(entry.kind), fmt::format("{:04o}", entry.mode),
                   std::to_string(entry.size_bytes), human_time(to_rfc3339(entry.modified)),
                   printable(entry.name) + (entry.link_target.empty()
                                                ? std::string()
                                                : " -> " + printable(entry.link_target))});
    if (table.empty())
        impl_->note("It is empty.\n");
    else
        impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::get_files(const FilesArguments& arguments) {
    if (const Status path = check_path(arguments.path); !path) return impl_->failed(path.error());
    // From here on an interruption ends the exports, and does not leave them behind.
    if (impl_->environment.pause(0)) return kExitInterrupted;
    auto look = Look::open(impl_->environment, impl_->options, arguments);
    if (!look) return impl_->failed(look.error());
    Fetcher fetcher(*look->guest, arguments, impl_->environment);
    std::string local;
    const auto work = [&]() -> Status {
        FS_TRY(look->mount(arguments));
        FS_ASSIGN(const std::string real, look->guest->resolve(arguments.path));
        FS_ASSIGN(const GuestEntry entry, look->guest->entry(real));
        PosixFileSystem files;
        local = impl_->absolute(arguments.to.empty() ? "." : arguments.to);
        const bool into = arguments.to.empty() || files.list(local).has_value();
        if (into) {
            const std::string name = is_plain_name(entry.name) ? entry.name : "root";
            local = below(local, name);
        }
        return fetcher.fetch(entry, real, local, 0);
    };
    const Status done = work();
    if (!done) {
        const int code = impl_->failed(done.error());
        return done.error().code() == Code::kCancelled ? kExitInterrupted : code;
    }
    if (impl_->json) {
        Json json{{"path", arguments.path},   {"to", local},
                  {"files", fetcher.files},   {"bytes", fetcher.bytes},
                  {"skipped", Json::array()}, {"sequence", look->exports->sequence()}};
        for (const std::string& path : fetcher.skipped) json["skipped"].push_back(path);
        impl_->print(json);
        return 0;
    }
    impl_->say(fmt::format("{} files, {}, in {}\n", human_count(fetcher.files),
                           human_bytes(fetcher.bytes), printable(local)));
    if (!fetcher.skipped.empty())
        impl_->note(fmt::format("{} links and special files were left out.\n",
                                human_count(fetcher.skipped.size())));
    return 0;
}

}  // namespace farshore
