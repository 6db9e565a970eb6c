// Appliances and vaults of the simulated system: how each starts, and what it does on its ticks.
#include <algorithm>

#include "replica/log_walk.h"
#include "replica/replica_compare.h"
#include "system.h"

namespace farshore::system_sim {

// ---- what an appliance asks of the vault

template <typename T>
T LossyLink::call(const ItemId& item, const std::function<T(Machine&, VaultProgram&)>& body) {
    Machine* const machine = system_.machine_of(item);
    if (machine == nullptr) return fail(Code::kItemNotFound, "there is no such item");
    std::optional<T> result;
    SimProcess& vault = system_.vault_to_ask();
    const Status called = system_.network().call(self_, vault, [&] {
        const auto program = vault.program<VaultProgram>();
        if (program == nullptr || !program->open)
            result.emplace(fail(Code::kUnavailable, "the vault is starting"));
        else
            result.emplace(body(*machine, *program));
    });
    if (!called) return fail(called.error());
    return std::move(*result);
}

Result<LogLease> LossyLink::acquire_log(const ItemId& item, const std::string& appliance) {
    return call<Result<LogLease>>(item, [&](Machine& m, VaultProgram& v) -> Result<LogLease> {
        FS_ASSIGN(LogLease lease, v.items[m.index()].replica->acquire_log(appliance));
        lease.agent = m.agent_name();
        return lease;
    });
}
Status LossyLink::register_segment(const SegmentRegistration& registration) {
    return call<Status>(registration.item, [&](Machine& m, VaultProgram& v) {
        return v.items[m.index()].replica->register_segment(registration);
    });
}
Status LossyLink::mark_idle(const ItemId& item, Epoch epoch, Sequence sequence, TimePoint time) {
    return call<Status>(item, [&](Machine& m, VaultProgram& v) {
        return v.items[m.index()].replica->mark_idle(epoch, sequence, time);
    });
}

// As Vault::compare does, with a reader for each question.
Result<CompareAnswer> LossyLink::compare(const std::string& agent, const ItemId& item,
                                         const CompareQuestion& question) {
    bool asked = false;
    auto answer = call<Result<CompareAnswer>>(
        item, [&](Machine& m, VaultProgram& v) -> Result<CompareAnswer> {
            asked = true;
            if (agent != m.agent_name())
                return fail(Code::kForbidden, "the item is another agent's");
            FS_ASSIGN(const ReplicaStatus status, v.items[m.index()].replica->status());
            if (status.stored < question.at_least)
                return CompareAnswer{CompareVerdict::kNotYet, {}, 0};
            ReplicaReaderOptions options;
            options.allow_gap = true;
            FS_ASSIGN(const auto reader,
                      ReplicaReader::open(*v.store, m.item(), m.key(), status.stored, options));
            return compare_replica(*reader, question);
        });
    if (!answer && answer.error().retry() == Retry::kNever)
        return fail(Code::kUnavailable, answer.error().to_string());
    if (answer && asked) ++system_.outcome().answers;
    return answer;
}

// ---- appliance

std::shared_ptr<void> System::boot_appliance(SimProcess& self, size_t index) {
    auto program = std::make_shared<ApplianceProgram>();
    program->store = store_.client(self);
    program->link = std::make_unique<LossyLink>(*this, self);
    ProcessServerExecutors executors;
    executors.home = &self.executor();
    executors.spool = &self.new_executor();
    executors.build = &self.new_executor();
    executors.upload = &self.new_executor();
    executors.control = &self.new_executor();
    for (size_t i = 0; i < shape_.puts; ++i) executors.puts.push_back(&self.new_executor());
    ProcessServerOptions options = shape_.server;
    options.name = self.name();
    options.buggify = &world_;
    program->server =
        std::make_unique<ProcessServer>(self.file_system(), *program->store, *program->link,
                                        self.clock(), self.random(), executors, options);
    if (!program->server->start()) {
        self.kill();
        return program;
    }
    auto listening =
        network_.listen(self, self.executor(), kAddresses[index], self.name(),
                        [server = program->server.get()](std::unique_ptr<Connection> connection) {
                            server->accept(std::move(connection));
                        });
    FS_CHECK(listening.has_value());
    program->listener = std::move(*listening);
    return program;
}

// ---- vault

Status System::open_vault(SimProcess& self, size_t index, VaultProgram& program) {
    if (!program.fence) {
        FS_ASSIGN(program.fence,
                  VaultFence::claim(*program.store, self.clock(), self.random(), self.name()));
    }
    ItemReplicaOptions options = shape_.replica;
    options.fence = &*program.fence;
    options.buggify = &world_;
    const size_t database = database_of(index);
    for (auto& machine : machines_) {
        MemoryLedger& ledger = *ledgers_[database][machine->index()];
        if (!ledger_ready_[database]) {
            FS_TRY(ItemReplica::rebuild(*program.store, ledger, machine->item(), machine->key(),
                                        options));
            machine->forget_void_leases();
            const SegmentNumber end = ledger.state()->last_segment;
            const auto behind = list_log(peek_, machine->item(), end);
            if (behind && behind->highest > end) ++outcome_.leftovers;
        }
        FS_ASSIGN(program.items[machine->index()].replica,
                  ItemReplica::open(*program.store, ledger, self.clock(), self.random(),
                                    machine->item(), machine->key(), options));
    }
    ledger_ready_[database] = true;
    program.open = true;
    return {};
}

// A transaction of the database: the process may die before or after it, the database may be busy,
// and a commit may be there although an error was reported.
Status System::on_commit(const char* commit, bool after) {
    SimProcess* const self = world_.current_process();
    if (self == nullptr) return {};
    SimOperation op(*self, self->life(), commit, after ? 1 : 0);
    if (op.dead()) return op.error();
    if (op.torn()) {
        op.die();
        return op.error();
    }
    op.finish();
    if (op.dead()) return op.error();
    if (!after && self == vaults_[active_vault_]) take_over_within(commit);
    if (world_.buggify(after ? "ledger.lost_answer" : "ledger.busy"))
        return fail(Code::kUnavailable, "the database is busy");
    return {};
}

std::shared_ptr<void> System::boot_vault(SimProcess& self, size_t index) {
    auto program = std::make_shared<VaultProgram>();
    program->items.resize(machines_.size());
    // A vault that was replaced is not started again: it would claim the store back.
    if (shape_.vaults != Vaults::kShared && index != active_vault_) return program;
    program->store = store_.client(self);
    self.executor().post([this, &self, index, p = program.get()] { vault_tick(self, index, *p); });
    return program;
}

void System::vault_tick(SimProcess& self, size_t index, VaultProgram& program) {
    int64_t again_us = 100'000;
    if (program.open) {
        again_us = 250'000 + static_cast<int64_t>(draw_.below(500'000));
        for (size_t machine = 0; machine < machines_.size(); ++machine) upkeep(program, machine);
    } else if (index == active_vault_) {
        const Status opened = open_vault(self, index, program);
        if (!opened) world_.trace("vault.open", 0, 0, opened.error().to_string());
    }
    self.executor().post_after_us(
        again_us, [this, &self, index, &program] { vault_tick(self, index, program); });
}

void System::upkeep(VaultProgram& program, size_t machine) {
    VaultProgram::Item& item = program.items[machine];
    const auto wrote = item.replica->maybe_checkpoint();
    if (!wrote) world_.trace("vault.checkpoint", machine, 0, wrote.error().to_string());
    use_leases(item);
    const auto report = item.replica->run_retention(shape_.retention);
    if (!report) {
        world_.trace("vault.retention", machine, 0, report.error().to_string());
        if (report.error().code() == Code::kFenced) ++outcome_.fenced_vaults;
    } else if (report->floor_moved) {
        ++outcome_.floors_moved;
    }
}

// Somebody reads here and there.
void System::use_leases(VaultProgram::Item& item) {
    if (item.leases.size() < 2 && draw_.below(4) == 0) {
        const auto points = item.replica->points({});
        if (!points || points->ranges.empty()) return;
        const OfferedRange& range = points->ranges[draw_.below(points->ranges.size())];
        const Sequence at{range.first.v + draw_.below(range.last.v - range.first.v + 1)};
        const auto lease = item.replica->lease(at, "reader", draw_.between(1'000'000, 12'000'000));
        if (lease) item.leases.push_back(lease->id);
    } else if (!item.leases.empty() && draw_.below(6) == 0) {
        if (draw_.coin()) {
            (void)item.replica->renew(item.leases.back(), 5'000'000);
        } else {
            (void)item.replica->release(item.leases.back());
            item.leases.pop_back();
        }
    }
}

}  // namespace farshore::system_sim
