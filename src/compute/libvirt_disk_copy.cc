// A disk of a libvirt domain that becomes a file at its host: libvirt's block copy.
// https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainBlockCopy (libvirt 9.0).
#include <fmt/core.h>

#include <pugixml.hpp>

#include "compute/domain_xml.h"
#include "compute/libvirt_machine.h"
#include "os/real.h"
#include "os/waiting.h"

namespace farshore {
namespace {

constexpr int kSwitchedPollMs = 5;

// What libvirt says of the disk: what it is called, and how far its copy is.
struct DomainDiskNow {
    std::string target;    // "vda"
    bool copied = false;   // into that file
    bool foreign = false;  // into another one
    bool ready = false, switching = false, switched = false;
};

Result<DomainDiskNow> look(const LibvirtHost& host, virDomain* domain, const DiskCopyOrder& order) {
    char* const said = virDomainGetXMLDesc(domain, 0);
    if (said == nullptr) return fail(host.error("the machine's disks"));
    const std::string xml = taken(said);
    pugi::xml_document document;
    if (!document.load_buffer(xml.data(), xml.size()))
        return fail(Code::kMalformed, "the machine's definition is not what libvirt writes");
    for (const pugi::xml_node disk : document.child("domain").child("devices").children("disk")) {
        const pugi::xml_node source = disk.child("source"), mirror = disk.child("mirror");
        DomainDiskNow now;
        now.target = disk.child("target").attribute("dev").value();
        now.switched = source.attribute("file").value() == order.file.path;
        const bool ours = mirror.child("source").attribute("file").value() == order.file.path;
        const std::string_view ready = mirror.attribute("ready").value();
        now.copied = ours && ready != "abort";
        now.foreign = !mirror.empty() && !ours;
        now.ready = ours && ready == "yes";
        now.switching = ours && ready == "pivot";
        if (now.switched || source.attribute("name").value() == order.export_name) return now;
    }
    return fail(Code::kNotFound,
                fmt::format("the machine has no disk '{}' any more", order.export_name));
}

Result<bool> is_paused(const LibvirtHost& host, virDomain* domain) {
    int now = 0, reason = 0;
    if (virDomainGetState(domain, &now, &reason, 0) != 0)
        return fail(host.error("the machine's state"));
    return now == VIR_DOMAIN_PAUSED;
}

// Ok: it surely runs on.
Status go_on(const LibvirtHost& host, virDomain* domain) {
    FS_ASSIGN(const bool paused, is_paused(host, domain));
    if (paused && virDomainResume(domain) != 0)
        return fail(host.error("going on with the machine"));
    return {};
}

}  // namespace

Result<CopyState> LibvirtMachine::copy_state(const DiskCopyOrder& order) {
    FS_ASSIGN(const LibvirtDomain found, domain());
    FS_ASSIGN(const DomainDiskNow now, look(*host_, found.get(), order));
    CopyState state;
    if (now.switched) {
        state.stage = CopyStage::kSwitched;
        return state;
    }
    if (!now.copied) return state;
    virDomainBlockJobInfo info{};
    const int known = virDomainGetBlockJobInfo(found.get(), now.target.c_str(), &info,
                                               VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES);
    if (known < 0) return fail(host_->error("the copy of a disk"));
    if (known == 0) return state;
    state.done_bytes = info.cur;
    state.total_bytes = info.end;
    state.stage = now.ready ? CopyStage::kReady : CopyStage::kCopying;
    return state;
}

Status LibvirtMachine::begin_copy(const DiskCopyOrder& order) {
    FS_ASSIGN(const LibvirtDomain found, domain());
    FS_ASSIGN(const DomainDiskNow now, look(*host_, found.get(), order));
    if (now.switched) return {};
    // One that somebody lost sight of.
    if (now.foreign && virDomainBlockJobAbort(found.get(), now.target.c_str(), 0) != 0)
        return fail(host_->error("giving up an earlier copy"));
    if (now.copied) {
        if (virDomainBlockJobSetSpeed(found.get(), now.target.c_str(), order.bytes_per_s,
                                      VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES) != 0)
            return fail(host_->error("the speed of a copy"));
        return {};
    }
    const std::string to = copy_target_xml(order.file);
    virTypedParameter bandwidth{};
    std::snprintf(bandwidth.field, sizeof bandwidth.field, "%s", VIR_DOMAIN_BLOCK_COPY_BANDWIDTH);
    bandwidth.type = VIR_TYPED_PARAM_ULLONG;
    bandwidth.value.ul = order.bytes_per_s;
    // A job that libvirt forgets with the domain: it is begun anew then. Without
    // VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES, as in QemuDiskCopy::begin().
    if (virDomainBlockCopy(found.get(), now.target.c_str(), to.c_str(), &bandwidth,
                           order.bytes_per_s == 0 ? 0 : 1,
                           VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB) != 0)
        return fail(host_->error(fmt::format("copying a disk to {}", order.file.path)));
    return {};
}

// The guest stands still meanwhile: what its host loses between the file and the note is in both.
// Whatever cannot be found out leaves it so; only what is surely not switched goes on as it was.
Result<int64_t> LibvirtMachine::switch_over(const DiskCopyOrder& order,
                                            const std::function<Status()>& note, int timeout_ms) {
    FS_ASSIGN(const LibvirtDomain found, domain());
    FS_ASSIGN(DomainDiskNow now, look(*host_, found.get(), order));
    const auto as_it_was = [&](const std::string& why) -> Status {
        FS_TRY(go_on(*host_, found.get()));
        return fail(Code::kWrongState, why);
    };
    const RealClock clock;
    const int64_t from_us = clock.steady_us();
    if (!now.switched && !now.copied) FS_TRY(as_it_was("the disk is not copied any more"));
    if (now.copied && !now.ready && !now.switching)
        return fail(Code::kUnavailable, "the disk is not copied yet");
    if (now.ready) {
        FS_ASSIGN(const bool held, is_paused(*host_, found.get()));
        if (!held && virDomainSuspend(found.get()) != 0)
            return fail(host_->error("holding the machine"));
        if (virDomainBlockJobAbort(found.get(), now.target.c_str(),
                                   VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) != 0) {
            const Error refused = host_->error("the end of a copy");
            FS_ASSIGN(now, look(*host_, found.get(), order));
            if (!now.switched && !now.switching) FS_TRY(as_it_was(refused.what()));
        }
    }
    // libvirt ends it by itself.
    Status seen;
    now.switched = wait_until(timeout_ms, kSwitchedPollMs,
                              [&] {
                                  const auto then = look(*host_, found.get(), order);
                                  seen = then ? Status() : fail(then.error());
                                  if (then) now = *then;
                                  return now.switched || (then && !now.copied);
                              }) &&
                   now.switched;
    FS_TRY(seen);
    if (!now.switched && !now.copied) FS_TRY(as_it_was("the disk is not copied any more"));
    if (!now.switched) return fail(Code::kTimeout, "libvirt does not end the copy of a disk");
    FS_TRY(note());
    FS_TRY(go_on(*host_, found.get()));
    return clock.steady_us() - from_us;
}

Status LibvirtMachine::end_copy(const DiskCopyOrder& order) {
    const auto found = domain();
    if (!found && found.error().code() == Code::kNotFound) return {};
    if (!found) return fail(found.error());
    FS_ASSIGN(const DomainDiskNow now, look(*host_, found->get(), order));
    if (now.switched || !now.copied) return {};
    if (virDomainBlockJobAbort(found->get(), now.target.c_str(), 0) != 0)
        return fail(host_->error("giving up a copy"));
    return {};
}

}  // namespace farshore
