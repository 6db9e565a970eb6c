#include "agent/appliance_routes.h"

#include <algorithm>

namespace farshore {

ApplianceRoutes::ApplianceRoutes(std::vector<std::string> configured, std::string name,
                                 MakeDialer make)
    : configured_(std::move(configured)), name_(std::move(name)), make_(std::move(make)) {
    FS_CHECK(!configured_.empty());
}

bool ApplianceRoutes::learn(const std::vector<ApplianceAddress>& appliances) {
    const std::lock_guard hold(mutex_);
    if (appliances == learned_) return false;
    // The conversation stays where it is, if that is known still.
    const ApplianceAddress now = control_target_locked();
    learned_ = appliances;
    if (at_ < configured_.size()) return true;
    const auto same = std::ranges::find(learned_, now);
    at_ = same == learned_.end()
              ? 0
              : configured_.size() + static_cast<size_t>(same - learned_.begin());
    return true;
}

std::vector<ApplianceAddress> ApplianceRoutes::learned() const {
    const std::lock_guard hold(mutex_);
    return learned_;
}

ApplianceAddress ApplianceRoutes::control_target_locked() const {
    if (at_ < configured_.size()) return {name_, configured_[at_]};
    return learned_[at_ - configured_.size()];
}

std::string ApplianceRoutes::control_address() const {
    const std::lock_guard hold(mutex_);
    return control_target_locked().address;
}

void ApplianceRoutes::control_failed() {
    const std::lock_guard hold(mutex_);
    const size_t all = configured_.size() + learned_.size();
    // One that was configured may be one that was learned.
    const std::string failed = control_target_locked().address;
    for (size_t tried = 0; tried < all; ++tried) {
        at_ = (at_ + 1) % all;
        if (control_target_locked().address != failed) break;
    }
    control_peer_.clear();
}

ApplianceAddress ApplianceRoutes::find(const ApplianceAddress& wanted) const {
    const std::lock_guard hold(mutex_);
    const ApplianceAddress control = control_target_locked();
    if (wanted.name.empty()) return control;
    if (wanted.name == control_peer_ || wanted.address.empty())
        return {wanted.name, control.address};
    return wanted;
}

void ApplianceRoutes::dial(Executor& executor, const ApplianceAddress& where,
                           std::function<void(Result<std::unique_ptr<Connection>>)> done) {
    Dialer* dialer = nullptr;
    {
        const std::lock_guard hold(mutex_);
        auto& known = dialers_[where.name];
        if (!known) known = make_(where.name);
        dialer = known.get();
    }
    dialer->dial(executor, where.address, std::move(done));
}

void ApplianceRoutes::Control::dial(Executor& executor, const std::string& /*address*/,
                                    std::function<void(Result<std::unique_ptr<Connection>>)> done) {
    ApplianceAddress where;
    {
        const std::lock_guard hold(routes_.mutex_);
        where = routes_.control_target_locked();
    }
    routes_.dial(executor, where, [this, where, done = std::move(done)](auto made) {
        if (made) {
            const std::lock_guard hold(routes_.mutex_);
            if (routes_.control_target_locked() == where)
                routes_.control_peer_ = (*made)->peer_name();
        }
        done(std::move(made));
    });
}

void ItemRoute::set(const ApplianceAddress& appliance) {
    const std::lock_guard hold(mutex_);
    appliance_ = appliance;
}

std::string ItemRoute::appliance() const {
    const std::lock_guard hold(mutex_);
    return appliance_.name;
}

void ItemRoute::dial(Executor& executor, const std::string& /*address*/,
                     std::function<void(Result<std::unique_ptr<Connection>>)> done) {
    ApplianceAddress wanted;
    {
        const std::lock_guard hold(mutex_);
        wanted = appliance_;
    }
    routes_.dial(executor, routes_.find(wanted), std::move(done));
}

}  // namespace farshore
