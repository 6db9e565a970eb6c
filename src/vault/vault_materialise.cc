// A point written out as an image: the job, from the wish to the image's name.
#include <fmt/core.h>

#include <algorithm>
#include <thread>

#include "block/image_copy.h"
#include "block/replica_device.h"
#include "meta/json_fields.h"
#include "os/worker_pool.h"
#include "vault/disk_image.h"
#include "vault/log_about.h"
#include "vault/vault_impl.h"

namespace farshore {
namespace {

constexpr const char* kJobKind = "materialise";
constexpr size_t kMaxInputBytes = 64u << 10;
constexpr int64_t kLeaseUs = 3600ll * 1'000'000;
constexpr int64_t kRenewUs = 60ll * 1'000'000;
constexpr size_t kCacheBytes = 64u << 20;
// More than cores: some wait for the disks while others decode.
constexpr unsigned kMostThreads = 8;
constexpr double kCopyShare = 0.6;  // of the progress; the second pass is the rest

// What the job's input says, and what it is saved as.
struct Input {
    ItemId item;
    std::string copy;  // the store that is read; empty: the vault's own
    Sequence sequence;
    TimePoint time;
    DiskIndex disk = 0;
    uint64_t disk_bytes = 0;
    std::string target;
    std::string settings_file;
    bool replace_existing = false;
    uint64_t lease = 0;
    bool begun = false;    // image and sums are there
    bool copied = false;   // the first pass is done
    bool checked = false;  // so is the second: what is missing is the name
    uint64_t throttle_bytes_per_s = 0;
    ImageCopyPosition at;
    int64_t copy_us = 0;  // that the first pass took, over all its runs

    std::string dump() const {
        return dump_json({{"item", item.to_string()},
                          {"copy", copy},
                          {"sequence", sequence.v},
                          {"time_us", time.us},
                          {"disk", disk},
                          {"disk_bytes", disk_bytes},
                          {"target", target},
                          {"settings", settings_file},
                          {"replace", replace_existing},
                          {"lease", lease},
                          {"begun", begun},
                          {"copied", copied},
                          {"checked", checked},
                          {"throttle", throttle_bytes_per_s},
                          {"copied_bytes", at.copied_bytes},
                          {"pieces", at.pieces},
                          {"written_bytes", at.written_bytes},
                          {"verified_pieces", at.verified_pieces},
                          {"verified_bytes", at.verified_bytes},
                          {"copy_us", copy_us}});
    }
    static Result<Input> parse(const std::string& text) {
        FS_ASSIGN(const Json json, parse_json(text, "the job's input", kMaxInputBytes));
        FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "input"));
        Input input;
        FS_ASSIGN(const std::string item, fields.required_text("item", 32));
        FS_ASSIGN(input.item, ItemId::parse(item));
        FS_ASSIGN(input.copy, fields.text("copy", kMaxStoreNameBytes));
        FS_ASSIGN(input.sequence.v, fields.u64("sequence"));
        FS_ASSIGN(const uint64_t time_us, fields.u64("time_us"));
        input.time.us = static_cast<int64_t>(time_us);
        FS_ASSIGN(const uint64_t disk, fields.u64("disk", 0, kMaxDisks - 1));
        input.disk = static_cast<DiskIndex>(disk);
        FS_ASSIGN(input.disk_bytes, fields.u64("disk_bytes"));
        FS_ASSIGN(input.target, fields.required_text("target", kMaxPathBytes + 64));
        FS_ASSIGN(input.settings_file, fields.text("settings", kMaxPathBytes));
        FS_ASSIGN(input.lease, fields.u64("lease"));
        FS_ASSIGN(input.at.copied_bytes, fields.u64("copied_bytes"));
        FS_ASSIGN(input.at.pieces, fields.u64("pieces"));
        FS_ASSIGN(input.at.written_bytes, fields.u64("written_bytes"));
        FS_ASSIGN(input.at.verified_pieces, fields.u64("verified_pieces"));
        FS_ASSIGN(input.at.verified_bytes, fields.u64("verified_bytes"));
        FS_ASSIGN(const uint64_t copy_us, fields.u64("copy_us"));
        input.copy_us = static_cast<int64_t>(copy_us);
        const auto flag = [&](const char* name) {
            const auto at = json.find(name);
            return at != json.end() && at->is_boolean() && at->get<bool>();
        };
        input.replace_existing = flag("replace");
        input.begun = flag("begun");
        input.copied = flag("copied");
        input.checked = flag("checked");
        FS_ASSIGN(input.throttle_bytes_per_s, fields.u64("throttle"));
        return input;
    }
};

// One run of the job, from where the saved input stands.
class Materialiser {
  public:
    Materialiser(Vault::Impl& vault, JobRun& run, Input input)
        : vault_(vault),
          run_(run),
          in_(std::move(input)),
          pool_(std::clamp(2 * std::thread::hardware_concurrency(), 4u, kMostThreads) - 1) {
        const std::string base =
            fmt::format("{}/run/materialise-{}", vault.vault_directory, run.job().id);
        sums_path_ = base + ".sums";
        options_.socket = base + ".sock";
        options_.files = &vault.files;
        options_.clock = &vault.clock;
        options_.random = &vault.random;
        options_.disk_bytes = in_.disk_bytes;
        options_.replace_existing = in_.replace_existing;
        options_.settings_file = in_.settings_file;
    }

    Result<std::string> run() {
        auto done = work();
        if (!done && run_.vault_ends()) {
            lease_.leave();
            return done;  // the next vault goes on
        }
        image_.reset();
        sums_.reset();
        const Status gone = vault_.files.remove(sums_path_);
        if (!gone && gone.error().code() != Code::kNotFound)
            log::warn("vault", about(gone.error()), "{}: {}", sums_path_, gone.error().to_string());
        if (!done && owns_target_)
            if (const Status discarded = DiskImage::discard(options_); !discarded)
                log::warn("vault", about(discarded.error()), "an unfinished image is left: {}",
                          discarded.error().to_string());
        return done;
    }

  private:
    Result<std::string> work() {
        FS_ASSIGN(options_.target, ImageTarget::parse(in_.target));
        owns_target_ = true;
        if (in_.checked) {
            // Killed around the last step.
            FS_ASSIGN(const bool finished, DiskImage::is_finished(options_));
            if (finished) return result();
        }
        FS_ASSIGN(const std::shared_ptr<ItemRuntime> item, vault_.runtime(in_.item));
        FS_ASSIGN(const auto replica, vault_.replica_in(in_.copy, in_.item));
        FS_ASSIGN(ObjectStore* const store, vault_.store_in(in_.copy));
        FS_TRY(take_lease(replica));
        ReplicaReaderOptions reading;
        reading.cache_bytes = kCacheBytes;
        reading.parallel = [this](size_t n, const std::function<void(size_t)>& each) {
            pool_.run(n, each);
        };
        FS_ASSIGN(const auto reader, ReplicaReader::open(*store, in_.item, item->key, in_.sequence,
                                                         std::move(reading)));
        FS_ASSIGN(auto disk, reader->disk(in_.disk));
        const auto source = make_replica_device(std::move(disk));
        FS_TRY(open_image());

        ImageCopy copy;
        copy.from = source.get();
        copy.to = &image_->device();
        copy.sums = sums_.get();
        copy.pool = &pool_;
        copy.clock = &vault_.clock;
        copy.disk_bytes = in_.disk_bytes;
        copy.blank = image_->blank();
        copy.position = in_.at;
        copy.save = [this](const ImageCopyPosition& at) { return save(at); };
        copy.report = [this](uint64_t done, uint64_t moved) { return report(done, moved); };
        if (!in_.copied) {
            begin_pass(in_.at.copied_bytes);
            FS_TRY(copy_image(copy));
            in_.copied = true;
            FS_TRY(save(copy.position));
        }
        begin_pass(in_.at.verified_bytes);
        FS_TRY(image_->reopen());
        copy.to = &image_->device();
        FS_TRY(verify_image(copy));
        verify_us_ = vault_.clock.steady_us() - pass_us_;
        in_.checked = true;
        FS_TRY(run_.save(in_.dump()));
        FS_TRY(image_->finish());
        return result();
    }

    std::string result() const {
        return dump_json({{"target", in_.target},
                          {"point", {{"sequence", in_.sequence.v}, {"time", to_rfc3339(in_.time)}}},
                          {"disk", in_.disk},
                          {"disk_bytes", in_.disk_bytes},
                          {"written_bytes", in_.at.written_bytes},
                          {"copy_s", static_cast<double>(in_.copy_us) / 1e6},
                          {"verify_s", static_cast<double>(verify_us_) / 1e6}});
    }

    // That of an earlier run where it is still held.
    Status take_lease(const std::shared_ptr<ItemReplica>& replica) {
        if (in_.lease != 0 && replica->renew(in_.lease, kLeaseUs)) {
            lease_ = PointLease(replica, in_.lease);
        } else {
            FS_ASSIGN(const LeaseRow row,
                      replica->lease(in_.sequence,
                                     fmt::format("materialise, job {}", run_.job().id), kLeaseUs));
            lease_ = PointLease(replica, row.id);
            in_.lease = row.id;
            FS_TRY(run_.save(in_.dump()));
        }
        renewed_us_ = vault_.clock.steady_us();
        return {};
    }

    Status open_image() {
        if (in_.begun) {
            auto sums = vault_.files.open(sums_path_, OpenMode::kReadWrite);
            auto image = DiskImage::open(options_, true);
            if (sums && image) {
                sums_ = std::move(*sums);
                image_ = std::move(*image);
                return {};
            }
            const Error& why = sums ? image.error() : sums.error();
            if (why.code() != Code::kNotFound) return fail(why);
            log::info("vault", about(run_.job(), why), "job {} begins anew: {}", run_.job().id,
                      why.what());
        }
        in_.begun = in_.copied = in_.checked = false;
        in_.at = {};
        in_.copy_us = 0;
        FS_TRY(vault_.files.make_directories(parent_directory(sums_path_)));
        FS_ASSIGN(sums_, vault_.files.open(sums_path_, OpenMode::kCreate));
        FS_TRY(begin_sums(*sums_, vault_.random));
        FS_TRY(sums_->sync());
        FS_TRY(vault_.files.sync_directory(parent_directory(sums_path_)));
        FS_ASSIGN(image_, DiskImage::open(options_, false));
        in_.begun = true;
        return run_.save(in_.dump());
    }

    void begin_pass(uint64_t from) {
        pass_us_ = counted_us_ = vault_.clock.steady_us();
        pass_from_ = from;
    }

    Status save(const ImageCopyPosition& at) {
        const int64_t now_us = vault_.clock.steady_us();
        if (!in_.copied) in_.copy_us += now_us - counted_us_;
        counted_us_ = now_us;
        in_.at = at;
        return run_.save(in_.dump());
    }

    Status report(uint64_t done, uint64_t moved) {
        const int64_t now_us = vault_.clock.steady_us();
        if (now_us - renewed_us_ >= kRenewUs) {
            FS_TRY(lease_.renew(kLeaseUs));
            renewed_us_ = now_us;
        }
        const double part =
            static_cast<double>(done) / static_cast<double>(std::max<uint64_t>(in_.disk_bytes, 1));
        int64_t eta_s = -1;
        if (now_us - pass_us_ > 1'000'000 && done > pass_from_)
            eta_s = static_cast<int64_t>(static_cast<double>(now_us - pass_us_) / 1e6 *
                                         static_cast<double>(in_.disk_bytes - done) /
                                         static_cast<double>(done - pass_from_));
        FS_TRY(in_.copied ? run_.report(kCopyShare + (1 - kCopyShare) * part,
                                        "reading the image back", eta_s)
                          : run_.report(kCopyShare * part, "writing the image", eta_s));
        if (in_.throttle_bytes_per_s == 0) return {};
        const auto due_us = static_cast<int64_t>(static_cast<double>(moved) * 1e6 /
                                                 static_cast<double>(in_.throttle_bytes_per_s));
        const int64_t early_us = due_us - (vault_.clock.steady_us() - pass_us_);
        return early_us > 0 ? run_.pause(early_us) : Status();
    }

    Vault::Impl& vault_;
    JobRun& run_;
    Input in_;
    WorkerPool pool_;
    DiskImageOptions options_;
    std::string sums_path_;
    bool owns_target_ = false;
    PointLease lease_;
    std::unique_ptr<File> sums_;
    std::unique_ptr<DiskImage> image_;
    int64_t renewed_us_ = 0, pass_us_ = 0, counted_us_ = 0, verify_us_ = 0;
    uint64_t pass_from_ = 0;
};

}  // namespace

JobWork Vault::Impl::materialise_work(const JobRecord& job) {
    return [this, text = job.input](JobRun& run) -> Result<std::string> {
        FS_ASSIGN(Input input, Input::parse(text));
        return Materialiser(*this, run, std::move(input)).run();
    };
}

Result<JobRecord> Vault::materialise(const MaterialiseRequest& request) {
    FS_ASSIGN(const ItemRecord item, find_item(*impl_->database, request.item));
    FS_TRY(check_action(item.state, ItemAction::kRead));
    FS_ASSIGN(const auto replica, this->replica(item.id, request.copy));
    FS_ASSIGN(const ResolvedPoint point,
              replica->resolve(PointSpec::parse(request.point.empty() ? "latest" : request.point)));
    FS_ASSIGN(const auto disks, replica->disks_of(point.sequence));
    const auto disk = std::ranges::find_if(
        disks, [&](const DiskSize& known) { return known.disk == request.disk; });
    if (disk == disks.end() || disk->joining)
        return fail(
            Code::kNotFound,
            fmt::format("'{}' has no disk {} at sequence {}{}", item.name, request.disk,
                        point.sequence.v, disk == disks.end() ? "" : ": it is not copied yet"),
            "`farshore points` shows which disks a point has");
    DiskImageOptions options;
    FS_ASSIGN(options.target, ImageTarget::parse(request.target));
    options.disk_bytes = disk->size_bytes;
    options.replace_existing = request.replace_existing;
    options.settings_file = request.settings_file;
    options.files = &impl_->files;
    options.clock = &impl_->clock;
    options.random = &impl_->random;
    FS_TRY(DiskImage::check(options));

    const std::lock_guard one_at_a_time(impl_->materialise_mutex);
    FS_ASSIGN(const auto open, open_jobs(*impl_->database));
    for (const JobRecord& other : open) {
        if (other.kind != kJobKind) continue;
        FS_ASSIGN(const Input theirs, Input::parse(other.input));
        FS_ASSIGN(const ImageTarget target, ImageTarget::parse(theirs.target));
        if (target.path == options.target.path)
            return fail(Code::kAlreadyExists,
                        fmt::format("job {} writes '{}'", other.id, target.path),
                        "wait for its end, or cancel it");
    }
    Input input;
    input.item = item.id;
    input.copy = request.copy;
    input.sequence = point.sequence;
    input.time = point.time;
    input.disk = request.disk;
    input.disk_bytes = disk->size_bytes;
    input.target = request.target;
    input.settings_file = request.settings_file;
    input.replace_existing = request.replace_existing;
    input.throttle_bytes_per_s = request.throttle_bytes_per_s;
    JobRecord job;
    job.input = input.dump();
    return start_job(kJobKind, item, true, job.input, impl_->materialise_work(job));
}

}  // namespace farshore
