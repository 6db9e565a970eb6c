// The program: the command line in its real surroundings.
#include "cli/local_environment.h"

int main(int argc, char** argv) {
    farshore::CliEnvironment environment = farshore::local_environment();
    return farshore::run_cli(environment, argc, argv);
}
