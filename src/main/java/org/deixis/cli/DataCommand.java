package org.deixis.cli;

import java.nio.file.Path;
import org.deixis.data.DataCheck;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

@Command(name = "data", description = "Looks at data sets.", subcommands = DataCommand.Check.class)
final class DataCommand extends BaseCommand {
  @picocli.CommandLine.Spec private picocli.CommandLine.Model.CommandSpec spec;

  @Override
  public Integer call() {
    spec.commandLine().usage(out);
    return 0;
  }

  @Command(
      name = "check",
      description =
          "Reads every record, picture and mask of a data set; prints what is wrong, and its statistics.",
      footer = {"", "  deixis data check scenes"})
  static final class Check extends BaseCommand {
    @Parameters(paramLabel = "DIR", description = "Folder of a data set, in either layout.")
    private Path folder;

    @Override
    public Integer call() {
      DataCheck.Report report = DataCheck.run(folder);
      out.print(report.text());
      if (report.ok()) {
        return 0;
      }
      err.println(
          "deixis: "
              + folder
              + " has "
              + report.problems().size()
              + " bad records; mend them, or train with --skip-bad");
      return Main.BAD_INPUT;
    }
  }
}
