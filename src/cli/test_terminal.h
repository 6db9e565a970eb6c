// A command line run without a terminal or a server: what is asked of the API is held against a
// script. Included by tests only.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "cli/environment.h"

namespace farshore {

struct Exchange {
    std::string request;  // "METHOD target body"
    Result<std::string> answer;
};

// A server that was told what it will be asked and what it answers.
class CannedTransport final : public ApiTransport {
  public:
    explicit CannedTransport(std::deque<Exchange>& script) : script_(script) {}
    Result<std::string> call(const std::string& method, const std::string& target,
                             const std::string& body, int) override {
        const std::string request =
            body.empty() ? method + " " + target : method + " " + target + " " + body;
        if (script_.empty()) {
            ADD_FAILURE() << "unexpected request: " << request;
            return fail(Code::kInternal, "unexpected");
        }
        Exchange next = script_.front();
        script_.pop_front();
        EXPECT_EQ(request, next.request);
        return next.answer;
    }
    Result<std::string> call_if_match(const std::string& etag, const std::string& method,
                                      const std::string& target, const std::string& body,
                                      int timeout_s) override {
        return call("If-Match " + etag + ": " + method, target, body, timeout_s);
    }
    // The answer is the stream; a second one like it fails for good.
    Status follow(const std::string& target, const std::string& after,
                  const std::function<bool(std::string_view)>& on_text) override {
        auto text = call("FOLLOW " + after, target, {}, 0);
        if (!text) return tl::unexpected(text.error());
        if (!on_text(*text)) return fail(Code::kCancelled, "not wanted");
        return {};
    }

  private:
    std::deque<Exchange>& script_;
};

struct Terminal {
    std::deque<Exchange> script;
    std::map<std::string, std::string> variables{{"FARSHORE_DATA", "/data"}};
    std::map<std::string, std::string> files{
        {"/data/server.json",
         R"({"format":1,"address":"https://127.0.0.1:8443","ca":"pki/ca.crt","token_file":"t"})"}};
    std::ostringstream out, err;
    ServerLocation connected;
    int pauses_until_interrupt = 1000;
    std::vector<std::string> asked;
    bool terminal = false;
    std::string line;  // that is typed when somebody asks; empty: nobody is there

    int run(std::vector<const char*> words) {
        words.insert(words.begin(), "farshore");
        out.str("");
        err.str("");
        CliEnvironment environment;
        environment.out = &out;
        environment.err = &err;
        environment.err_is_terminal = terminal;
        environment.columns = 80;
        environment.working_directory = "/here";
        environment.variable = [this](const std::string& name) { return variables[name]; };
        environment.read_file = [this](const std::string& path) -> Result<std::string> {
            if (!files.count(path)) return fail(Code::kNotFound, path);
            return files[path];
        };
        environment.keep_secret = [this](const std::string& path, const std::string& text) {
            files[path] = text;
            return Status{};
        };
        environment.remove_file = [this](const std::string& path) {
            files.erase(path);
            return Status{};
        };
        environment.ask_secret = [this](const std::string& prompt) -> Result<std::string> {
            asked.push_back(prompt);
            return std::string("typed secret");
        };
        if (!line.empty())
            environment.ask = [this](const std::string& prompt) -> Result<std::string> {
                asked.push_back(prompt);
                return line;
            };
        environment.connect =
            [this](const ServerLocation& location) -> Result<std::unique_ptr<ApiTransport>> {
            connected = location;
            return std::make_unique<CannedTransport>(script);
        };
        environment.pause = [this](int64_t) { return --pauses_until_interrupt < 0; };
        const int code = run_cli(environment, static_cast<int>(words.size()), words.data());
        EXPECT_TRUE(script.empty()) << "not asked: " << script.front().request;
        return code;
    }
};

}  // namespace farshore
