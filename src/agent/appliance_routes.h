// Which appliances an agent can speak to: those of its configuration, and those that the vault has
// told it of. The control conversation goes through any of them, the next one when one fails; each
// item's records go to the one that the vault has named for it.
//
// Any thread; dialling as base/seams.h. Dialers that it gives out borrow it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/seams.h"
#include "meta/agent_documents.h"

namespace farshore {

class ApplianceRoutes {
  public:
    // A dialer for peers that must prove this name; empty: any of the authority.
    using MakeDialer = std::function<std::unique_ptr<Dialer>(const std::string& name)>;
    // At least one host:port; `name` is what these must prove.
    ApplianceRoutes(std::vector<std::string> configured, std::string name, MakeDialer make);

    // The vault's word, as a whole. True when it is news.
    bool learn(const std::vector<ApplianceAddress>& appliances);
    std::vector<ApplianceAddress> learned() const;

    // For the control conversation; whatever address it is given, it dials control_address().
    Dialer& control() { return control_; }
    std::string control_address() const;
    // It did not work: the next one is tried.
    void control_failed();

    // Where an item's appliance is to be dialled; the name empty: the one of the conversation. That
    // one keeps the address that works for us, whatever it says of itself.
    ApplianceAddress find(const ApplianceAddress& wanted) const;
    void dial(Executor& executor, const ApplianceAddress& where,
              std::function<void(Result<std::unique_ptr<Connection>>)> done);

  private:
    class Control final : public Dialer {
      public:
        explicit Control(ApplianceRoutes& routes) : routes_(routes) {}
        void dial(Executor& executor, const std::string& address,
                  std::function<void(Result<std::unique_ptr<Connection>>)> done) override;

      private:
        ApplianceRoutes& routes_;
    };
    ApplianceAddress control_target_locked() const;

    const std::vector<std::string> configured_;
    const std::string name_;
    const MakeDialer make_;
    Control control_{*this};

    mutable std::mutex mutex_;  // the rest
    std::vector<ApplianceAddress> learned_;
    size_t at_ = 0;             // of configured_, and behind them learned_
    std::string control_peer_;  // who it proved to be, there
    std::map<std::string, std::unique_ptr<Dialer>> dialers_;
};

// Dials one item's appliance, wherever that is by then.
class ItemRoute final : public Dialer {
  public:
    explicit ItemRoute(ApplianceRoutes& routes) : routes_(routes) {}
    void set(const ApplianceAddress& appliance);
    std::string appliance() const;  // its name; empty: none was named
    // `address` is not looked at.
    void dial(Executor& executor, const std::string& address,
              std::function<void(Result<std::unique_ptr<Connection>>)> done) override;

  private:
    ApplianceRoutes& routes_;
    mutable std::mutex mutex_;
    ApplianceAddress appliance_;
};

}  // namespace farshore
