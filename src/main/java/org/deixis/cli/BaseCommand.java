package org.deixis.cli;

import java.io.PrintStream;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;

/** What all commands have: streams, and {@code --help}. */
@Command(mixinStandardHelpOptions = true)
abstract class BaseCommand implements Callable<Integer> {
  PrintStream out = System.out;
  PrintStream err = System.err;
}
