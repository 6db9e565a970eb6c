#include "vault/disk_image.h"

#include <fmt/core.h>

#include "block/file_device.h"
#include "block/nbd_device.h"
#include "block/vhd_footer.h"
#include "compute/nbd_server.h"
#include "os/process.h"
#include "os/program_files.h"
#include "os/real.h"
#include "os/waiting.h"
#include "vault/azure_image.h"

namespace farshore {
namespace {

constexpr uint64_t kMostVhdBytes = 2040ull << 30;  // what readers of dynamic ones take
constexpr int kStartMs = 30'000;
constexpr int64_t kEndUs = 120'000'000;  // what is not written yet is, first
constexpr const char* kQemuRemedy = "install qemu-utils on the vault's machine";

struct FormatName {
    ImageFormat format;
    std::string_view name;
    const char* qemu;  // nullptr: we write it
};
constexpr FormatName kFormats[] = {{ImageFormat::kRaw, "raw", nullptr},
                                   {ImageFormat::kQcow2, "qcow2", "qcow2"},
                                   {ImageFormat::kVhd, "vhd", nullptr},
                                   {ImageFormat::kVhdDynamic, "vhd-dynamic", "vpc"},
                                   {ImageFormat::kAzurePageBlob, "azure-page-blob", nullptr}};

const char* qemu_format(ImageFormat format) {
    for (const FormatName& known : kFormats)
        if (known.format == format) return known.qemu;
    return nullptr;
}

Status remove_if_there(FileSystem& files, const std::string& path) {
    Status gone = files.remove(path);
    if (!gone && gone.error().code() != Code::kNotFound) return gone;
    return {};
}

uint64_t whole_sectors(uint64_t bytes) {
    return (bytes + kVhdSectorBytes - 1) / kVhdSectorBytes * kVhdSectorBytes;
}

Result<std::string> run_qemu_img(std::vector<std::string> arguments) {
    ProcessOptions options;
    options.arguments = std::move(arguments);
    auto done = run_command(options);
    if (!done && done.error().code() == Code::kDependencyMissing)
        return fail(done.error().code(), done.error().what(), kQemuRemedy);
    if (!done) return fail(done.error());
    if (!done->exit.success()) {
        const bool full = done->error.find("No space left") != std::string::npos;
        return fail(full ? Code::kNoSpace : Code::kIo,
                    fmt::format("{}: {}", options.arguments[0] + " " + options.arguments[1],
                                done->error.substr(0, 1000)));
    }
    return std::move(done->output);
}

// The common part: where it is until it is whole.
class Image : public DiskImage {
  public:
    explicit Image(const DiskImageOptions& options)
        : options_(options), partial_(partial_path(options.target)) {}

  protected:
    Status sync_file() {
        FS_ASSIGN(const auto file, options_.files->open(partial_, OpenMode::kReadWrite));
        return file->sync();
    }
    Status give_name() {
        FS_TRY(sync_file());
        FS_ASSIGN(const bool there, options_.files->exists(options_.target.path));
        if (there && !options_.replace_existing)
            return fail(
                Code::kAlreadyExists,
                fmt::format("'{}' has come since the image was begun", options_.target.path),
                "remove it, or name another one");
        FS_TRY(options_.files->rename(partial_, options_.target.path));
        return options_.files->sync_directory(parent_directory(options_.target.path));
    }

    const DiskImageOptions options_;
    const std::string partial_;
};

// raw and fixed VHD; a block device is written in its place.
class PlainImage final : public Image {
  public:
    PlainImage(const DiskImageOptions& options, bool in_place)
        : Image(options), in_place_(in_place), vhd_(options.target.format == ImageFormat::kVhd) {}

    Status begin(bool resume) {
        if (in_place_) return open_device({.exclusive = true});
        const uint64_t bytes =
            vhd_ ? whole_sectors(options_.disk_bytes) + kVhdFooterBytes : options_.disk_bytes;
        if (resume) {
            FS_ASSIGN(const auto file, options_.files->open(partial_, OpenMode::kReadWrite));
            FS_ASSIGN(const uint64_t there, file->size());
            if (there != bytes)
                return fail(Code::kNotFound, fmt::format("'{}' is another image", partial_));
        } else {
            FS_TRY(remove_if_there(*options_.files, partial_));
            FS_ASSIGN(const auto file, options_.files->open(partial_, OpenMode::kCreateNew));
            FS_TRY(file->truncate(bytes));
            FS_TRY(file->sync());
            FS_TRY(options_.files->sync_directory(parent_directory(partial_)));
        }
        return open_device({.expect_bytes = bytes});
    }

    BlockDevice& device() override { return *device_; }
    bool blank() const override { return !in_place_; }
    Status reopen() override {
        FS_TRY(device_->flush());
        return open_device({.read_only = true, .exclusive = in_place_, .drop_cached = true});
    }
    Status finish() override {
        if (in_place_) return {};
        device_.reset();
        if (vhd_) {
            const uint64_t bytes = whole_sectors(options_.disk_bytes);
            std::array<uint8_t, 16> id;
            options_.random->fill(id);
            FS_ASSIGN(const auto file, options_.files->open(partial_, OpenMode::kReadWrite));
            FS_TRY(file->write_at(bytes, fixed_vhd_footer(bytes, options_.clock->now(), id)));
        }
        return give_name();
    }

  private:
    Status open_device(const FileDeviceOptions& how) {
        device_.reset();
        FS_ASSIGN(device_, open_file_device(in_place_ ? options_.target.path : partial_, how));
        return {};
    }

    const bool in_place_, vhd_;
    std::unique_ptr<BlockDevice> device_;
};

// What a qemu-nbd of ours serves.
class QemuImage final : public Image {
  public:
    using Image::Image;
    ~QemuImage() override { (void)stop(); }

    Status begin(bool resume) {
        const std::string format = qemu_format(options_.target.format);
        const bool qcow2 = format == "qcow2";
        if (resume) {
            FS_ASSIGN(const bool there, options_.files->exists(partial_));
            if (!there) return fail(Code::kNotFound, fmt::format("there is no '{}'", partial_));
            // Killed in the middle, it may have taken clusters that nothing refers to.
            if (qcow2)
                FS_TRY(run_qemu_img(
                    {"qemu-img", "check", "-q", "-r", "leaks", "-f", format, partial_}));
        } else {
            FS_TRY(remove_if_there(*options_.files, partial_));
            FS_TRY(run_qemu_img({"qemu-img", "create", "-q", "-f", format, "-o",
                                 qcow2 ? "compat=1.1" : "subformat=dynamic,force_size=on", partial_,
                                 std::to_string(whole_sectors(options_.disk_bytes))}));
            FS_TRY(sync_file());
            FS_TRY(options_.files->sync_directory(parent_directory(partial_)));
        }
        return start(true);
    }

    BlockDevice& device() override { return *device_; }
    bool blank() const override { return true; }
    Status reopen() override {
        FS_TRY(device_->flush());
        FS_TRY(stop());
        FS_TRY(sync_file());
        // For what qemu-nbd reads next.
        FS_TRY(open_file_device(partial_, {.read_only = true, .drop_cached = true}));
        return start(false);
    }
    Status finish() override {
        FS_TRY(stop());
        return give_name();
    }

  private:
    Status start(bool writable) {
        FS_TRY(remove_if_there(*options_.files, options_.socket));
        ProcessOptions process;
        process.arguments = {"qemu-nbd",
                             "--socket=" + options_.socket,
                             fmt::format("--format={}", qemu_format(options_.target.format)),
                             "--persistent",
                             "--shared=0",
                             "--cache=writeback",
                             "--discard=unmap"};
        if (!writable) process.arguments.push_back("--read-only");
        process.arguments.push_back(partial_);
        const std::string log = options_.socket + ".log";
        FS_TRY(remove_if_there(*options_.files, log));
        process.output = process.error = StdStream::file(log);
        process.new_session = true;
        process.die_with_parent = true;
        auto started = Process::spawn(process);
        if (!started && started.error().code() == Code::kDependencyMissing)
            return fail(started.error().code(), started.error().what(), kQemuRemedy);
        if (!started) return fail(started.error());
        server_ = std::move(*started);
        const bool greets = wait_until(kStartMs, 5, [&] {
            return !server_->is_alive() || nbd_server_greets(options_.socket, 1000).has_value();
        });
        if (!greets || !server_->is_alive()) {
            const std::string words = tail_of_file(log);
            (void)stop();
            return fail(Code::kUnavailable,
                        fmt::format("qemu-nbd does not serve '{}': {}", partial_, words));
        }
        FS_ASSIGN(device_, open_nbd_device({.uri = "nbd+unix:///?socket=" + options_.socket,
                                            .writable = writable}));
        return {};
    }
    Status stop() {
        device_.reset();
        if (!server_) return {};
        auto ended = server_->terminate(kEndUs);
        server_.reset();
        FS_TRY(remove_if_there(*options_.files, options_.socket));
        FS_TRY(remove_if_there(*options_.files, options_.socket + ".log"));
        if (!ended) return fail(ended.error());
        if (!ended->success())
            return fail(Code::kIo, fmt::format("qemu-nbd ended: {}", ended->to_string()));
        return {};
    }

    std::optional<Process> server_;
    std::unique_ptr<BlockDevice> device_;
};

}  // namespace

Result<ImageTarget> ImageTarget::parse(std::string_view text) {
    const size_t colon = text.find(':');
    for (const FormatName& known : kFormats) {
        if (colon == text.npos || text.substr(0, colon) != known.name) continue;
        ImageTarget target{known.format, std::string(text.substr(colon + 1))};
        if (target.format == ImageFormat::kAzurePageBlob)
            return target;  // its URL is looked at later
        if (target.path.empty() || target.path[0] != '/' || target.path.back() == '/' ||
            target.path.find('\0') != std::string::npos)
            return fail(Code::kInvalidArgument,
                        fmt::format("'{}' names no file", text.substr(0, 200)),
                        "give an absolute path on the vault's machine");
        return target;
    }
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' is no image to write", text.substr(0, 200)),
                "raw:FILE, qcow2:FILE, vhd:FILE, vhd-dynamic:FILE or azure-page-blob:URL");
}

Status DiskImage::check(const DiskImageOptions& options) {
    if (options.target.format == ImageFormat::kAzurePageBlob) return check_azure_image(options);
    const std::string& path = options.target.path;
    FS_ASSIGN(const bool there, options.files->exists(path));
    FS_ASSIGN(const bool directory, options.files->exists(parent_directory(path)));
    if (!directory)
        return fail(Code::kNotFound,
                    fmt::format("there is no directory '{}'", parent_directory(path)),
                    "make it on the vault's machine first");
    if (there && !options.replace_existing)
        return fail(Code::kAlreadyExists, fmt::format("'{}' is there", path),
                    "remove it, name another one, or replace what is there with --force");
    if (options.target.format == ImageFormat::kVhdDynamic && options.disk_bytes > kMostVhdBytes)
        return fail(Code::kTooLarge, "a dynamic VHD holds at most 2040 GiB",
                    "write it as vhd: (fixed), raw: or qcow2:");
    if (!there) return {};
    FS_ASSIGN(const bool block, is_block_device(path));
    if (!block) {
        // A directory cannot be replaced by a file.
        FS_TRY(options.files->open(path, OpenMode::kRead));
        return {};
    }
    if (options.target.format != ImageFormat::kRaw)
        return fail(Code::kInvalidArgument,
                    fmt::format("'{}' is a block device: only raw: goes there", path));
    FS_ASSIGN(const auto device, open_file_device(path, {.exclusive = true}));
    if (device->size_bytes() < options.disk_bytes)
        return fail(Code::kTooLarge,
                    fmt::format("'{}' has {} bytes, the disk {}", path, device->size_bytes(),
                                options.disk_bytes),
                    "name a larger one");
    return {};
}

Result<std::unique_ptr<DiskImage>> DiskImage::open(const DiskImageOptions& options, bool resume) {
    if (options.target.format == ImageFormat::kAzurePageBlob)
        return open_azure_image(options, resume);
    if (qemu_format(options.target.format) != nullptr) {
        auto image = std::make_unique<QemuImage>(options);
        FS_TRY(image->begin(resume));
        return image;
    }
    auto block = is_block_device(options.target.path);
    if (!block && block.error().code() != Code::kNotFound) return fail(block.error());
    auto image = std::make_unique<PlainImage>(options, block && *block);
    FS_TRY(image->begin(resume));
    return image;
}

Status DiskImage::discard(const DiskImageOptions& options) {
    if (options.target.format == ImageFormat::kAzurePageBlob) return discard_azure_image(options);
    return remove_if_there(*options.files, partial_path(options.target));
}

Result<bool> DiskImage::is_finished(const DiskImageOptions& options) {
    if (options.target.format == ImageFormat::kAzurePageBlob) return false;
    FS_ASSIGN(const bool unnamed, options.files->exists(partial_path(options.target)));
    FS_ASSIGN(const bool named, options.files->exists(options.target.path));
    return named && !unnamed;
}

}  // namespace farshore
