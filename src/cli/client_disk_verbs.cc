// The verbs about a protected machine's disks and what their replica begins with.
#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {

int ClientVerbs::disks(const std::string& name) {
    auto answer = impl_->call("GET", item_target(name));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(member(*answer, "disks"));
        return 0;
    }
    Table table({{"DISK", Align::kRight}, {"SIZE", Align::kRight}, {"STATE"}, {"PATH"}});
    if (const Json& disks = member(*answer, "disks"); disks.is_array())
        for (const Json& disk : disks)
            table.add({std::to_string(count_of(disk, "index")),
                       human_bytes(count_of(disk, "size_bytes")), text_of(disk, "state"),
                       text_of(disk, "path")});
    impl_->say(table.to_string());
    return 0;
}

int ClientVerbs::add_disk(const std::string& name, const std::string& path, bool wait) {
    auto item = impl_->call("GET", item_target(name));
    if (!item) return impl_->failed(item.error());
    // QEMU's names are no paths.
    const bool mirrored = text_of(*item, "mode") == "mirror";
    auto answer = impl_->call("POST", item_target(name, "/disks"),
                              {{"path", mirrored ? path : impl_->absolute(path)}});
    if (!answer) return impl_->failed(answer.error());
    const Json& disks = member(*answer, "disks");
    const uint64_t index = disks.is_array() && !disks.empty() ? count_of(disks.back(), "index") : 0;
    if (!wait) {
        if (impl_->json)
            impl_->print(*answer);
        else
            impl_->say(
                fmt::format("It is disk {}, and is copied; `farshore disk list` shows when "
                            "the points have it.\n",
                            index));
        return 0;
    }
    return impl_->wait_until_joined(name, index);
}

int ClientVerbs::Impl::wait_until_joined(const std::string& name, uint64_t index) {
    return follow_item(name, 300, "Copying", [&](const Json& item) -> std::optional<int> {
        std::string state;
        if (const Json& disks = member(item, "disks"); disks.is_array())
            for (const Json& disk : disks)
                if (count_of(disk, "index") == index) state = text_of(disk, "state");
        if (state == "joining") {
            draw_progress(copy_fraction(item), eta_of(item), copy_text(item));
            return std::nullopt;
        }
        clear_progress();
        if (json)
            print(item);
        else
            say(fmt::format("Disk {} is {}.\n", index, state.empty() ? "not there" : state));
        return state == "protected" ? 0 : 1;
    });
}

int ClientVerbs::change_seed(const std::string& name, const std::string& action) {
    auto answer = impl_->call("POST", item_target(name, "/seed"), {{"action", action}});
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("The seed is {}.\n", text_of(member(*answer, "seed"), "state")));
    return 0;
}

int ClientVerbs::remove_disk(const std::string& name, uint64_t index) {
    auto answer = impl_->call("DELETE", item_target(name, fmt::format("/disks/{}", index)));
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say(fmt::format("Disk {} is not protected any more; the points until now keep it.\n",
                               index));
    return 0;
}

}  // namespace farshore
