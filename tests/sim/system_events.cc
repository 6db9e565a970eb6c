// What happens to the simulated system: its guest writes, and faults strike.
#include <algorithm>
#include <cerrno>

#include "system.h"

namespace farshore::system_sim {

// ---- guest

GuestOp System::draw_op() {
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

Status System::apply_to(TapDisk& disk, const GuestOp& op) {
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
Status System::change_source(const GuestOp& op) {
    auto& disk = guest_file_[op.disk];
    if (disk == nullptr) {
        FS_ASSIGN(auto file, guest_->file_system().open(fmt::format("disks/{}", op.disk),
                                                        OpenMode::kReadWrite));
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

void System::guest_tick() {
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

void System::try_op(const std::shared_ptr<GuestOp>& op) {
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

SimProcess& System::any_process() {
    // Half of them where most of the state is.
    switch (draw_.below(8)) {
        case 0:
        case 1:
            return *tap_;
        case 2:
            return *agent_;
        case 3:
        case 4:
            return *appliances_[address_];
        case 5:
            return *appliances_[shape_.two_appliances ? draw_.below(2) : 0];
        default:
            return *vaults_[active_vault_];
    }
}

void System::fail_source_disk() {
    SimDisk& disk = source_host_.disk();
    const uint64_t skip = draw_.below(10), count = 1 + draw_.below(3);
    switch (draw_.below(7)) {
        case 0:
            return disk.fail_next(DiskOp::kWrite, kSpillPath, ENOSPC, count, skip);
        case 1:
            return disk.fail_next(DiskOp::kRead, kSpillPath, EIO, count, skip);
        case 2:
            return disk.fail_next(DiskOp::kWrite, kDirtyPath, EIO, count, skip);
        case 3:
            return disk.fail_next(DiskOp::kSync, kDirtyPath, EIO, count, skip);
        case 4:
            return disk.fail_next(DiskOp::kRead, "disks/", EIO, count, skip);
        case 5:
            return disk.fail_next(DiskOp::kWrite, kSpillPath, EIO, count, skip);
        default:
            // In mirror mode QEMU itself would see it.
            if (shape_.mode == TapMode::kMirror) return;
            return disk.fail_next(DiskOp::kWrite, "disks/", EIO, count, skip);
    }
}

// Leases that ran out before or after a jump are no longer kept, whatever the clock says later.
void System::void_leases() {
    const auto leases = ledgers_[active_vault_].list_leases();
    const TimePoint now = vault_hosts_[active_vault_]->clock().now();
    if (!leases) return;
    for (const LeaseRow& lease : *leases)
        if (lease.expires <= now) void_leases_.insert(lease.id);
}

void System::jump_clock(SimHost& host) {
    void_leases();
    const int64_t by_us = draw_.coin() ? draw_.between(-20'000'000, 20'000'000)
                                       : draw_.between(-3'600'000'000, 3'600'000'000);
    host.clock().jump_wall_us(by_us);
    void_leases();
}

void System::strike() {
    SimHost* hosts[] = {&source_host_, appliance_hosts_[address_], vault_hosts_[active_vault_]};
    SimHost& host = *hosts[draw_.below(3)];
    const auto heal_later = [this](SimHost& a, SimHost& b) {
        network_.partition(a, b);
        world_.after_us(draw_.between(100'000, 9'000'000), [this, &a, &b] { network_.heal(a, b); });
    };
    switch (draw_.below(20)) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5: {
            SimProcess& victim = any_process();
            if (!victim.alive()) return;
            DeathPlan plan;
            plan.at_operation = victim.operations() + 1 + draw_.below(draw_.coin() ? 12 : 60);
            plan.moment = static_cast<DeathPlan::Moment>(draw_.below(3));
            plan.power_loss = draw_.below(3) == 0;
            victim.plan_death(plan);
            world_.run_until([&] { return !victim.alive(); }, 1'500'000);
            return;
        }
        case 6: {
            SimProcess& victim = any_process();
            if (victim.alive()) victim.kill();
            return;
        }
        case 7:
        case 8:
            if (host.up()) {
                ++outcome_.power_losses;
                host.lose_power();
                // Also when nothing lived there that could tell on_death.
                host.power_on_after_us(draw_.between(1'000, 2'000'000));
            }
            return;
        case 9:
            return heal_later(source_host_, *appliance_hosts_[address_]);
        case 10:
            return heal_later(*appliance_hosts_[address_], *vault_hosts_[active_vault_]);
        case 11:
            network_.clog(source_host_, *appliance_hosts_[address_],
                          draw_.between(100'000, 4'000'000));
            return;
        case 12:
            if (draw_.coin())
                network_.reset(source_host_, *appliance_hosts_[address_]);
            else
                network_.half_open(*appliance_hosts_[address_], source_host_);
            return;
        case 13:
            store_.set_outage(true);
            world_.after_us(draw_.between(200'000, 5'000'000),
                            [this] { store_.set_outage(false); });
            return;
        case 14:
            guest_burst_ += 20 + draw_.below(30);
            guest_left_ += 15;
            heal_later(source_host_, *appliance_hosts_[address_]);
            return;
        case 15:
        case 16: {
            // All is stored and the dirty map is clean; then the first write meets a power loss.
            guest_flushes_ = shape_.disk_bytes.size();
            guest_idle_until_us_ = world_.now_us() + draw_.between(4'000'000, 9'000'000);
            world_.run_for_us(guest_idle_until_us_ - world_.now_us());
            guest_left_ = std::max<uint64_t>(guest_left_, 5);
            if (!tap_->alive()) return;
            DeathPlan plan;
            // A mark is two writes and a sync.
            plan.at_operation = 1 + draw_.below(draw_.coin() ? 3 : 6);
            plan.moment = static_cast<DeathPlan::Moment>(draw_.below(3));
            plan.power_loss = draw_.below(4) != 0;
            death_at_write_ = plan;
            world_.run_until([&] { return !tap_->alive(); }, 800'000);
            death_at_write_.reset();
            return;
        }
        case 17:
            return jump_clock(host);
        case 18:
            if (shape_.source_errors) fail_source_disk();
            return;
        default:
            if (shape_.two_appliances && draw_.coin()) {
                address_ = 1 - address_;
                if (appliances_[address_]->life() == 0) appliances_[address_]->start();
            } else if (shape_.two_vaults && active_vault_ == 0 && vault_is_open(0)) {
                active_vault_ = 1;
                vaults_[1]->start();
            }
            return;
    }
}

void System::become_calm() {
    world_.trace("calm");
    faults_ = false;
    world_.faults().enable(false);
    store_.allow_errors(false);
    store_.allow_damaged_reads(false);
    store_.set_outage(false);
    for (SimHost* host : appliance_hosts_) host->disk().allow_errors(false);
    for (SimProcess* process :
         {tap_, agent_, appliances_[0], appliances_[1], vaults_[0], vaults_[1]})
        process->plan_death({});
    // fail_next() that did not happen yet still may: it is a transient error of the source's disk.
    network_.heal_all();
    guest_left_ = std::min<uint64_t>(guest_left_, 10);
}

}  // namespace farshore::system_sim
