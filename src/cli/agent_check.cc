#include "cli/agent_check.h"

#include <ostream>

#include "cli/format.h"
#include "meta/json_fields.h"

namespace farshore {

int run_agent_check(CliEnvironment& environment, const CaptureCheckOptions& options, bool json) {
    const auto checks = check_capture(options);
    const bool works = capture_will_work(checks);
    if (json) {
        Json list = Json::array();
        for (const CaptureCheck& check : checks) {
            Json one{{"result", std::string(check_result_name(check.result))},
                     {"subject", check.subject},
                     {"what", check.what}};
            if (!check.remedy.empty()) one["remedy"] = check.remedy;
            list.push_back(std::move(one));
        }
        *environment.out << dump_json(Json{{"works", works}, {"checks", std::move(list)}})
                         << std::endl;
    } else {
        Table table({{"Result"}, {"Check"}, {"What"}});
        for (const CaptureCheck& check : checks)
            table.add({std::string(check_result_name(check.result)), printable(check.subject),
                       printable(check.what + (check.remedy.empty() ? "" : "; " + check.remedy))});
        *environment.out << table.to_string()
                         << (works ? "Capture will work here.\n" : "Capture will not work here.\n")
                         << std::flush;
    }
    return works ? 0 : code_exit_status(Code::kUnsupported);
}

}  // namespace farshore
