package org.deixis.cli;

import java.io.PrintStream;
import java.util.LinkedHashMap;
import java.util.Map;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.model.gres.JsonRecord;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.UnmatchedArgumentException;

/**
 * The command line. Exit code 0; 2 for bad usage or bad input, with one line that says what, where
 * and what to do; 1 for a fault of ours, with its trace. Commands load what they need when they
 * run, so that {@code --help} is quick.
 */
@Command(
    name = "deixis",
    version = "deixis 0.1.0",
    mixinStandardHelpOptions = true,
    description = "Finds in a picture what a phrase names: one object, several, or none.",
    subcommands = {
      DemoCommand.class,
      ScenesCommand.class,
      DataCommand.class,
      TrainCommand.class,
      EvalCommand.class,
      PredictCommand.class,
      ImportCommand.class,
      ExportCommand.class,
      DoctorCommand.class,
      BenchCommand.class
    },
    footer = {
      "",
      "Begin with:",
      "  deixis demo                    makes pictures, trains on them, shows what it learnt",
      "  deixis predict --model runs/demo/model --image X.png --text \"the red circle\" --out found"
    })
public final class Main implements Runnable {
  static final int BAD_INPUT = 2;
  private static final int OUR_FAULT = 1;

  @CommandLine.Spec private CommandLine.Model.CommandSpec spec;

  public static void main(String[] args) {
    System.exit(run(System.out, System.err, args));
  }

  /** Runs a command line in this process and returns its exit code. */
  public static int run(PrintStream out, PrintStream err, String... args) {
    CommandLine line = new CommandLine(new Main(), new Commands(out, err));
    line.setOut(new java.io.PrintWriter(out, true));
    line.setErr(new java.io.PrintWriter(err, true));
    line.setCaseInsensitiveEnumValuesAllowed(true);
    line.setParameterExceptionHandler((e, a) -> badUsage(err, e));
    line.setExecutionExceptionHandler((e, command, result) -> failed(err, e));
    try {
      return line.execute(args);
    } catch (OutOfMemoryError e) {
      err.println(
          "deixis: the Java heap is full ("
              + e.getMessage()
              + "); lower --images or --expressions, or set DEIXIS_JAVA_OPTIONS=-Xmx8g");
      return BAD_INPUT;
    }
  }

  private static int badUsage(PrintStream err, ParameterException e) {
    // A mistyped option leaves a required one missing: then the typo is what to speak of.
    String option =
        e.getCommandLine().getUnmatchedArguments().stream()
            .filter(a -> a.startsWith("-"))
            .findFirst()
            .orElse(null);
    String message;
    if (option != null) {
      message = "unknown option '" + option + "'; did you mean " + nearest(option, e) + "?";
    } else {
      message = Reason.oneLine(e.getMessage());
      if (e instanceof UnmatchedArgumentException unmatched
          && !unmatched.getSuggestions().isEmpty()) {
        message += "; did you mean " + unmatched.getSuggestions().get(0) + "?";
      }
    }
    String end = message.endsWith("?") ? " See '" : "; see '";
    err.println(
        "deixis: "
            + message
            + end
            + e.getCommandLine().getCommandSpec().qualifiedName()
            + " --help'");
    return BAD_INPUT;
  }

  /** Of the command's options, and of train's settings, which have no option of their own. */
  private static String nearest(String option, ParameterException e) {
    CommandLine.Model.CommandSpec command = e.getCommandLine().getCommandSpec();
    Map<String, String> names = new LinkedHashMap<>();
    command.optionsMap().keySet().forEach(name -> names.put(bare(name), name));
    if (command.userObject() instanceof TrainCommand) {
      TrainCommand.settingKeys().forEach(k -> names.putIfAbsent(k, "--set " + k + "=VALUE"));
    }
    return names.get(JsonRecord.nearest(bare(option.replaceFirst("=.*", "")), names.keySet()));
  }

  private static String bare(String option) {
    return option.replaceFirst("^-+", "");
  }

  private static int failed(PrintStream err, Exception e) {
    for (Throwable t = e; t != null; t = t.getCause()) {
      if (t instanceof InputException) {
        err.println("deixis: " + Reason.oneLine(t.getMessage()));
        return BAD_INPUT;
      }
    }
    err.println("deixis: this is a fault of ours; please report it with what follows");
    e.printStackTrace(err);
    return OUR_FAULT;
  }

  @Override
  public void run() {
    spec.commandLine().usage(spec.commandLine().getOut());
  }
}
