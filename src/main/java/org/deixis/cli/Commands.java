package org.deixis.cli;

import java.io.PrintStream;
import picocli.CommandLine;
import picocli.CommandLine.IFactory;

/** Makes commands and gives them the streams of this run. */
final class Commands implements IFactory {
  private final PrintStream out;
  private final PrintStream err;

  Commands(PrintStream out, PrintStream err) {
    this.out = out;
    this.err = err;
  }

  @Override
  public <K> K create(Class<K> type) throws Exception {
    K made = CommandLine.defaultFactory().create(type);
    if (made instanceof BaseCommand command) {
      command.out = out;
      command.err = err;
    }
    return made;
  }
}
