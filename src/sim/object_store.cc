#include "sim/object_store.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "store/object_name.h"

namespace farshore {
namespace {

constexpr std::string_view kOpNames[kStoreOps] = {"store.put",  "store.get",  "store.get_range",
                                                  "store.head", "store.list", "store.remove"};

struct Object {
    SharedBytes data;
    int64_t listed_from_us = 0;
};

struct ScriptedFailure {
    StoreOp op;
    std::string name_part;
    Code code;
    bool happens;
    uint64_t skip, count;
};

}  // namespace

struct SimObjectStore::Core : std::enable_shared_from_this<SimObjectStore::Core> {
    explicit Core(SimWorld& in) : world(in), rng(in.fork("store")) {}

    SimWorld& world;
    Rng rng;
    bool errors_allowed = false, damage_allowed = false, outage = false;
    StoreLatency latency;
    uint64_t capacity_bytes = std::numeric_limits<uint64_t>::max();
    int64_t list_lag_us = 0;
    std::map<std::string, Object> objects;
    uint64_t bytes = 0;
    StoreCounters counters;
    std::vector<StoreRemoval> removals;
    std::vector<ScriptedFailure> scripted;
    std::vector<std::function<void(SimProcess*, const std::string&, ByteView)>> put_hooks;
    std::vector<std::function<void(SimProcess*, const std::string&)>> remove_hooks;

    // How a call goes wrong.
    struct Fault {
        enum class Effect : uint8_t { kNone, kNow, kLate } effect;
        Error error;
    };
    std::optional<Fault> fault(StoreOp op, const std::string& name) {
        using Effect = Fault::Effect;
        if (outage)
            return Fault{Effect::kNone, Error(Code::kUnavailable, "object store: no connection")};
        for (ScriptedFailure& failure : scripted) {
            if (failure.op != op || failure.count == 0 ||
                name.find(failure.name_part) == std::string::npos)
                continue;
            if (failure.skip > 0) {
                --failure.skip;
                continue;
            }
            --failure.count;
            return Fault{failure.happens ? Effect::kNow : Effect::kNone,
                         Error(failure.code, "object store: scripted failure")};
        }
        if (!errors_allowed) return std::nullopt;
        if (world.buggify("store.unavailable"))
            return Fault{Effect::kNone, Error(Code::kUnavailable, "object store: 503")};
        if (world.buggify("store.throttled"))
            return Fault{Effect::kNone, Error(Code::kThrottled, "object store: 429")};
        if (world.buggify("store.timeout")) {
            take(5'000'000);
            return Fault{Effect::kNone, Error(Code::kTimeout, "object store: no answer")};
        }
        if (op != StoreOp::kPut && op != StoreOp::kRemove) return std::nullopt;
        if (world.buggify("store.lost_answer"))
            return Fault{Effect::kNow, rng.coin() ? Error(Code::kTimeout, "object store: no answer")
                                                  : Error(Code::kUnavailable, "object store: 502")};
        if (world.buggify("store.late_effect"))
            return Fault{Effect::kLate, Error(Code::kTimeout, "object store: no answer")};
        return std::nullopt;
    }
    void take(int64_t us) {
        if (us > 0) world.consume_us(rng.between(us / 2, us * 2));
    }
    void take_time(uint64_t body_bytes) {
        take(latency.base_us);
        if (latency.bytes_per_s > 0)
            take(static_cast<int64_t>(body_bytes * 1'000'000 / latency.bytes_per_s));
    }

    Status put_now(SimProcess* by, const std::string& name, const SharedBytes& data) {
        if (objects.contains(name)) return fail(Code::kAlreadyExists, "object " + name + " exists");
        if (bytes + data->size() > capacity_bytes)
            return fail(Code::kNoSpace, "object store is full");
        for (const auto& hook : put_hooks) hook(by, name, *data);
        bytes += data->size();
        counters.put_bytes += data->size();
        int64_t listed_us = 0;
        if (list_lag_us > 0) listed_us = world.now_us() + rng.between(0, list_lag_us);
        objects[name] = {data, listed_us};
        return {};
    }
    void remove_now(SimProcess* by, const std::string& name) {
        const auto at = objects.find(name);
        if (at == objects.end()) return;
        for (const auto& hook : remove_hooks) hook(by, name);
        removals.push_back({world.now_us(), by == nullptr ? 0 : by->id(), name});
        bytes -= at->second.data->size();
        objects.erase(at);
    }
    Bytes damaged(Bytes body) {
        if (!damage_allowed || body.empty()) return body;
        if (world.buggify("store.truncated_body")) body.resize(rng.below(body.size()));
        if (!body.empty() && world.buggify("store.corrupt_body"))
            body[rng.below(body.size())] ^= static_cast<uint8_t>(1u << rng.below(8));
        return body;
    }
    Status change(const std::string& name, const std::function<void(Bytes&)>& edit) {
        const auto at = objects.find(name);
        if (at == objects.end()) return fail(Code::kNotFound, "no object " + name);
        Bytes copy = *at->second.data;
        edit(copy);
        bytes = bytes - at->second.data->size() + copy.size();
        at->second.data = std::make_shared<const Bytes>(std::move(copy));
        return {};
    }
};

class SimStoreClient final : public ObjectStore {
  public:
    SimStoreClient(std::shared_ptr<SimObjectStore::Core> core, SimProcess& process)
        : core_(std::move(core)), process_(process), life_(process.life()) {}

    Status put(const std::string& name, ByteView data) override {
        if (data.size() > kMaxObjectBytes)
            return fail(Code::kTooLarge, "object " + name + " is too large");
        SharedBytes body = std::make_shared<const Bytes>(data.begin(), data.end());
        return change(StoreOp::kPut, name, data.size(), [name, body](Core& core, SimProcess* by) {
            return core.put_now(by, name, body);
        });
    }

    Status remove(const std::string& name) override {
        return change(StoreOp::kRemove, name, 0, [name](Core& core, SimProcess* by) -> Status {
            core.remove_now(by, name);
            return {};
        });
    }

    Result<Bytes> get(const std::string& name) override {
        return read<Bytes>(StoreOp::kGet, name, [&]() -> Result<Bytes> {
            const auto at = core_->objects.find(name);
            if (at == core_->objects.end()) return missing(name);
            return body(*at->second.data);
        });
    }

    Result<Bytes> get_range(const std::string& name, uint64_t offset_bytes,
                            uint64_t length_bytes) override {
        return read<Bytes>(StoreOp::kGetRange, name, [&]() -> Result<Bytes> {
            const auto at = core_->objects.find(name);
            if (at == core_->objects.end()) return missing(name);
            const Bytes& all = *at->second.data;
            const uint64_t from = std::min<uint64_t>(offset_bytes, all.size());
            return body(
                ByteView(all).subspan(from, std::min<uint64_t>(length_bytes, all.size() - from)));
        });
    }

    Result<ObjectInfo> head(const std::string& name) override {
        return read<ObjectInfo>(StoreOp::kHead, name, [&]() -> Result<ObjectInfo> {
            const auto at = core_->objects.find(name);
            if (at == core_->objects.end()) return missing(name);
            return ObjectInfo{name, at->second.data->size()};
        });
    }

    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override {
        if (!is_object_name_prefix(prefix))
            return fail(Code::kInvalidArgument, "'" + prefix + "' cannot begin an object's name");
        using Infos = std::vector<ObjectInfo>;
        return read<Infos>(StoreOp::kList, prefix, [&]() -> Result<Infos> {
            Infos out;
            auto at = after < prefix ? core_->objects.lower_bound(prefix)
                                     : core_->objects.upper_bound(after);
            for (;
                 at != core_->objects.end() && out.size() < limit && at->first.starts_with(prefix);
                 ++at)
                if (at->second.listed_from_us <= core_->world.now_us())
                    out.push_back({at->first, at->second.data->size()});
            return out;
        });
    }

  private:
    using Core = SimObjectStore::Core;

    static tl::unexpected<Error> missing(const std::string& name) {
        return fail(Code::kNotFound, "no object " + name);
    }

    Bytes body(ByteView view) {
        core_->counters.read_bytes += view.size();
        core_->take_time(view.size());
        return core_->damaged(to_bytes(view));
    }

    template <typename T, typename Body>
    Result<T> read(StoreOp kind, const std::string& name, Body how) {
        if (kind != StoreOp::kList) FS_TRY(check_object_name(name));
        SimOperation op(process_, life_, kOpNames[static_cast<size_t>(kind)], 0, 0, name);
        if (op.dead()) return op.error();
        ++core_->counters.calls[static_cast<size_t>(kind)];
        core_->take_time(0);
        if (auto fault = core_->fault(kind, name)) {
            ++core_->counters.failed;
            return tl::unexpected(std::move(fault->error));
        }
        Result<T> result = how();
        op.finish();
        if (op.dead()) return op.error();
        return result;
    }

    template <typename Effect>
    Status change(StoreOp kind, const std::string& name, uint64_t size, Effect effect) {
        FS_TRY(check_object_name(name));
        SimOperation op(process_, life_, kOpNames[static_cast<size_t>(kind)], size, 0, name);
        if (op.dead()) return op.error();
        ++core_->counters.calls[static_cast<size_t>(kind)];
        core_->take_time(size);
        using When = Core::Fault::Effect;
        auto fault = core_->fault(kind, name);
        if (op.torn() && !fault) {
            // The request was on its way: it happened, never happens, or happens when we are dead.
            const uint64_t n = op.draw(3);
            fault = Core::Fault{n == 0   ? When::kNone
                                : n == 1 ? When::kNow
                                         : When::kLate,
                                Error(Code::kInternal, "died during the call")};
        }
        Status result;
        if (!fault || fault->effect == When::kNow) {
            result = effect(*core_, &process_);
        } else if (fault->effect == When::kLate) {
            core_->world.after_us(core_->rng.between(1'000, 20'000'000),
                                  [core = core_, by = &process_, kind, name, effect] {
                                      core->world.trace("store.late", 0, 0, name);
                                      (void)effect(*core, by);
                                  });
        }
        if (fault) {
            ++core_->counters.failed;
            result = tl::unexpected(fault->error);
        }
        op.finish();
        if (op.dead()) return op.error();
        return result;
    }

    std::shared_ptr<Core> core_;
    SimProcess& process_;
    uint64_t life_;
};

SimObjectStore::SimObjectStore(SimWorld& world) : core_(std::make_shared<Core>(world)) {}
SimObjectStore::~SimObjectStore() = default;

std::unique_ptr<ObjectStore> SimObjectStore::client(SimProcess& process) {
    return std::make_unique<SimStoreClient>(core_, process);
}

void SimObjectStore::allow_errors(bool allow) { core_->errors_allowed = allow; }
void SimObjectStore::allow_damaged_reads(bool allow) { core_->damage_allowed = allow; }
void SimObjectStore::set_latency(const StoreLatency& latency) { core_->latency = latency; }
void SimObjectStore::set_capacity_bytes(uint64_t bytes) { core_->capacity_bytes = bytes; }
void SimObjectStore::set_outage(bool outage) { core_->outage = outage; }
void SimObjectStore::set_list_lag_us(int64_t max_us) { core_->list_lag_us = max_us; }

void SimObjectStore::fail_next(StoreOp op, std::string name_part, Code code, bool happens,
                               uint64_t count, uint64_t skip) {
    std::erase_if(core_->scripted, [](const ScriptedFailure& f) { return f.count == 0; });
    core_->scripted.push_back({op, std::move(name_part), code, happens, skip, count});
}

void SimObjectStore::on_put(std::function<void(SimProcess*, const std::string&, ByteView)> hook) {
    core_->put_hooks.push_back(std::move(hook));
}
void SimObjectStore::on_remove(std::function<void(SimProcess*, const std::string&)> hook) {
    core_->remove_hooks.push_back(std::move(hook));
}

Result<Bytes> SimObjectStore::peek(const std::string& name) const {
    FS_ASSIGN(const ByteView view, peek_view(name));
    return to_bytes(view);
}

Result<ByteView> SimObjectStore::peek_view(const std::string& name) const {
    const auto at = core_->objects.find(name);
    if (at == core_->objects.end()) return fail(Code::kNotFound, "no object " + name);
    return ByteView(*at->second.data);
}

std::vector<std::string> SimObjectStore::names(const std::string& prefix) const {
    std::vector<std::string> out;
    for (auto at = core_->objects.lower_bound(prefix);
         at != core_->objects.end() && at->first.starts_with(prefix); ++at)
        out.push_back(at->first);
    return out;
}

uint64_t SimObjectStore::stored_bytes() const { return core_->bytes; }
const StoreCounters& SimObjectStore::counters() const { return core_->counters; }
const std::vector<StoreRemoval>& SimObjectStore::removals() const { return core_->removals; }

Status SimObjectStore::flip_bit(const std::string& name, uint64_t bit) {
    const auto at = core_->objects.find(name);
    if (at != core_->objects.end() && bit / 8 >= at->second.data->size())
        return fail(Code::kInvalidArgument, "bit beyond the object's end");
    return core_->change(name,
                         [bit](Bytes& b) { b[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8)); });
}
Status SimObjectStore::cut(const std::string& name, uint64_t size_bytes) {
    return core_->change(
        name, [size_bytes](Bytes& b) { b.resize(std::min<uint64_t>(size_bytes, b.size())); });
}
Status SimObjectStore::replace(const std::string& name, Bytes data) {
    return core_->change(name, [&data](Bytes& b) { b = std::move(data); });
}
Status SimObjectStore::erase(const std::string& name) {
    const auto at = core_->objects.find(name);
    if (at == core_->objects.end()) return fail(Code::kNotFound, "no object " + name);
    core_->bytes -= at->second.data->size();
    core_->objects.erase(at);
    return {};
}

}  // namespace farshore
