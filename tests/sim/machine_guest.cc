// The machine's own part: what its disks are, what its guest does to them.
#include <algorithm>
#include <cerrno>

#include "system.h"

namespace farshore::system_sim {

void Machine::draw_shape(size_t machines) {
    Rng& d = draw_;
    const uint64_t disks = 1 + d.below(3);
    for (uint64_t i = 0; i < disks; ++i) {
        uint64_t size = (i == 0 ? 512u << 10 : 64u << 10) + d.below((i == 0 ? 1200u : 500u) << 10);
        if (d.coin()) size = size / 4096 * 4096;
        if (i == 0 && d.below(6) == 0) size += 2u << 20;
        shape_.disk_bytes.push_back(size);
    }
    shape_.mode = d.below(4) == 0 ? TapMode::kMirror : TapMode::kInPath;
    shape_.spill_bytes = d.below(3) == 0 ? 0 : (128u << 10) << d.below(3);
    shape_.rotate_us = static_cast<uint64_t>(d.between(100'000, 800'000));
    shape_.disk_errors = d.below(4) == 0;
    // The second look of a comparison covers disks as small as these, and would mend what a dirty
    // map forgot; others are about comparing.
    const bool must = plant_ == Plant::kSkippedSum || plant_ == Plant::kEarlyEnd ||
                      plant_ == Plant::kStaleCompare || plant_ == Plant::kWrongDisk;
    const bool must_not = plant_ == Plant::kMarkTooLate || plant_ == Plant::kUnmarkTooEarly;
    shape_.compares = (d.below(4) != 0 || must) && !must_not;
    shape_.guest_ops = (60 + d.below(160)) / machines;
}

void Machine::make_disks() {
    SimProcess& setup = host_.add_process(fmt::format("setup-{}", index_));
    setup.start();
    setup.run([&] {
        FileSystem& fs = setup.file_system();
        FS_CHECK(fs.make_directories(disks_).has_value());
        FS_CHECK(fs.make_directories(capture_).has_value());
        for (size_t i = 0; i < shape_.disk_bytes.size(); ++i) {
            auto file = fs.open(disk_path(i), OpenMode::kCreate);
            FS_CHECK(file.has_value());
            // Not empty when protection begins.
            for (uint64_t at = 0; at < shape_.disk_bytes[i]; at += 100'000) {
                Bytes piece(
                    std::min<uint64_t>(guest_draw_.below(50'000), shape_.disk_bytes[i] - at));
                guest_draw_.fill(piece);
                FS_CHECK((*file)->write_at(at, piece).has_value());
            }
            FS_CHECK((*file)->truncate(shape_.disk_bytes[i]).has_value());
            FS_CHECK((*file)->sync().has_value());
        }
        FS_CHECK(fs.sync_directory(disks_).has_value());
        FS_CHECK(fs.sync_directory("").has_value());
    });
    setup.kill();
}

SystemModel::Disks Machine::source_content() {
    SystemModel::Disks disks;
    for (size_t i = 0; i < shape_.disk_bytes.size(); ++i) {
        auto content = host_.disk().peek(disk_path(i));
        FS_CHECK(content.has_value());
        content->resize(shape_.disk_bytes[i]);
        disks.push_back(std::move(*content));
    }
    return disks;
}

// ---- guest

GuestOp Machine::draw_op() {
    GuestOp op;
    Rng& d = guest_draw_;
    op.disk = static_cast<DiskIndex>(d.below(shape_.disk_bytes.size()));
    const uint64_t size = shape_.disk_bytes[op.disk];
    const uint64_t most = d.below(12) == 0 ? 200'000 : d.below(3) == 0 ? 40'000 : 6'000;
    op.length = std::min(size, 1 + d.below(most));
    op.offset = d.below(size - op.length + 1);
    if (d.coin()) {
        op.offset = op.offset / 512 * 512;
        op.length = std::min(size - op.offset, (op.length + 511) / 512 * 512);
    }
    switch (d.below(16)) {
        case 0:
            op.kind = GuestOp::Kind::kZero;
            break;
        case 1:
            op.kind = GuestOp::Kind::kUnmap;
            break;
        case 2:
            op.kind = GuestOp::Kind::kDiscard;
            break;
        case 3:
            op.kind = GuestOp::Kind::kFlush;
            break;
        case 4:
            op.kind = GuestOp::Kind::kWriteThrough;
            break;
        default:
            op.kind = GuestOp::Kind::kWrite;
            break;
    }
    if (op.kind == GuestOp::Kind::kFlush) op.length = 0;
    if (op.kind == GuestOp::Kind::kWrite || op.kind == GuestOp::Kind::kWriteThrough) {
        op.data.resize(op.length);
        if (d.below(4) == 0)
            std::fill(op.data.begin(), op.data.end(), static_cast<uint8_t>(1 + d.below(255)));
        else
            d.fill(op.data);
    }
    return op;
}

Status Machine::apply_to(TapDisk& disk, const GuestOp& op) {
    switch (op.kind) {
        case GuestOp::Kind::kWrite:
            return disk.write(op.offset, op.data);
        case GuestOp::Kind::kWriteThrough:
            return disk.write_through(op.offset, op.data);
        case GuestOp::Kind::kZero:
            return disk.zero(op.offset, op.length, false);
        case GuestOp::Kind::kUnmap:
            return disk.zero(op.offset, op.length, true);
        case GuestOp::Kind::kDiscard:
            return disk.discard(op.offset, op.length);
        case GuestOp::Kind::kFlush:
            return disk.flush();
    }
    return {};
}

// Mirror: QEMU writes the source before the tap hears of it.
Status Machine::change_source(const GuestOp& op) {
    auto& disk = guest_file_[op.disk];
    if (disk == nullptr) {
        FS_ASSIGN(auto file, guest_->file_system().open(disk_path(op.disk), OpenMode::kReadWrite));
        disk = std::make_unique<FileDisk>(std::move(file), shape_.disk_bytes[op.disk]);
    }
    switch (op.kind) {
        case GuestOp::Kind::kWrite:
        case GuestOp::Kind::kWriteThrough:
            return disk->write(op.offset, op.data);
        case GuestOp::Kind::kFlush:
            return disk->flush();
        default:
            return disk->zero(op.offset, op.length, op.kind != GuestOp::Kind::kZero);
    }
}

void Machine::guest_tick() {
    const bool mirror = shape_.mode == TapMode::kMirror;
    Rng& d = guest_draw_;
    int64_t wait_us = d.below(8) == 0 ? d.between(50'000, 400'000) : d.between(2'000, 60'000);
    if (guest_burst_ > 0) {
        --guest_burst_;
        wait_us = d.between(100, 2'000);
    }
    guest_->executor().post_after_us(wait_us, [this] { guest_tick(); });
    if (pending_.size() >= (mirror ? 3u : 1u)) return;
    auto op = std::make_shared<GuestOp>();
    if (guest_flushes_ > 0) {
        op->kind = GuestOp::Kind::kFlush;
        op->disk = static_cast<DiskIndex>(--guest_flushes_);
        ++guest_left_;
    } else if (guest_left_ == 0 || world_.now_us() < guest_idle_until_us_) {
        return;
    } else {
        *op = draw_op();
    }
    for (const auto& other : pending_)
        if (op->overlaps(*other)) return;
    --guest_left_;
    ++outcome_.writes;
    if (op->length > 0) op->change = model_.begin_change(op->disk, op->offset, op->length);
    pending_.push_back(op);
    if (mirror) {
        // A write that fails at the source is sent to no mirror, and may be there in part: QEMU
        // then stops the job. Not simulated.
        const Status changed = change_source(*op);
        FS_CHECK(changed.has_value() || !guest_->alive());
        guest_->executor().post_after_us(d.below(3) == 0 ? d.between(0, 30'000) : 0,
                                         [this, op] { try_op(op); });
    } else {
        try_op(op);
    }
}

void Machine::try_op(const std::shared_ptr<GuestOp>& op) {
    Status status;
    bool answered = false;
    if (tap_->alive()) {
        answered = tap_->run([&] {
            const auto program = tap_->program<TapProgram>();
            if (program == nullptr || program->tap == nullptr) return;
            status = apply_to(program->tap->disk(op->disk), *op);
            answered = true;
        }) && answered;
    }
    if (!answered) {
        // QEMU connects again and repeats what was not answered.
        guest_->executor().post_after_us(20'000, [this, op] { try_op(op); });
        return;
    }
    // After an error the range holds anything; what the copier finds there is right.
    if (op->change != 0 && status) model_.end_change(op->change);
    std::erase(pending_, op);
}

// ---- faults

void Machine::fail_disk() {
    SimDisk& disk = host_.disk();
    const uint64_t skip = draw_.below(10), count = 1 + draw_.below(3);
    switch (draw_.below(7)) {
        case 0:
            return disk.fail_next(DiskOp::kWrite, spill_path_, ENOSPC, count, skip);
        case 1:
            return disk.fail_next(DiskOp::kRead, spill_path_, EIO, count, skip);
        case 2:
            return disk.fail_next(DiskOp::kWrite, dirty_path_, EIO, count, skip);
        case 3:
            return disk.fail_next(DiskOp::kSync, dirty_path_, EIO, count, skip);
        case 4:
            return disk.fail_next(DiskOp::kRead, disks_, EIO, count, skip);
        case 5:
            return disk.fail_next(DiskOp::kWrite, spill_path_, EIO, count, skip);
        default:
            // In mirror mode QEMU itself would see it.
            if (shape_.mode == TapMode::kMirror) return;
            return disk.fail_next(DiskOp::kWrite, disks_, EIO, count, skip);
    }
}

void Machine::flush_then_idle(int64_t until_us) {
    guest_flushes_ = shape_.disk_bytes.size();
    guest_idle_until_us_ = until_us;
}

void Machine::burst(uint64_t quick, uint64_t more) {
    guest_burst_ += quick;
    guest_left_ += more;
}

}  // namespace farshore::system_sim
