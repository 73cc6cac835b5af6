package org.deixis.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.deixis.core.Env;
import org.deixis.core.InputException;

/**
 * A peer in a process of its own, of Python or Java, which waits between rounds; one line of JSON
 * asks, one answers ({@code bench/peer_protocol.py} is the other end).
 */
final class PeerProcess implements AutoCloseable {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final int LAST_WORDS = 600;

  private final String peer;
  private final Process process;
  private final Path errors;
  private final BufferedWriter to;
  private final BufferedReader from;
  private final JsonNode versions;
  private final boolean compiles;
  private int prepared;

  /**
   * Starts the script and waits until it has imported what it needs.
   *
   * @param device "cpu" or "cuda"
   */
  PeerProcess(Path python, Path script, String device) {
    this(script.toString(), List.of(python.toString(), script.toString()), Map.of(), device, false);
  }

  /**
   * Starts a program and waits until it has loaded what it needs.
   *
   * @param peer what it is called in errors
   * @param program with its arguments, but for those that every peer gets
   * @param environment variables that it gets besides ours
   * @param device "cpu" or "cuda"
   * @param compiles whether its code is yet to be compiled when it starts
   */
  PeerProcess(
      String peer,
      List<String> program,
      Map<String, String> environment,
      String device,
      boolean compiles) {
    this.peer = peer;
    this.compiles = compiles;
    try {
      errors = Files.createTempFile("deixis-peer", ".log");
      List<String> command = new ArrayList<>(program);
      command.add("serve");
      command.addAll(List.of("--threads", Integer.toString(Env.threads()), "--device", device));
      process = start(command, environment, errors);
    } catch (IOException e) {
      throw new InputException("cannot run " + program.get(0) + ": " + e.getMessage(), e);
    }
    to =
        new BufferedWriter(
            new OutputStreamWriter(process.getOutputStream(), StandardCharsets.UTF_8));
    from =
        new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
    try {
      versions = ask(JSON.createObjectNode().put("do", "hello"));
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  private static Process start(List<String> command, Map<String, String> environment, Path errors)
      throws IOException {
    ProcessBuilder builder = new ProcessBuilder(command).redirectError(errors.toFile());
    // Our own launcher says 1, which is about oneDNN inside this process.
    builder.environment().put("OMP_NUM_THREADS", Integer.toString(Env.threads()));
    // Likewise: a peer gets the pages that Python's own start gives it.
    builder.environment().remove("GLIBC_TUNABLES");
    builder.environment().putAll(environment);
    return builder.start();
  }

  /** Runs a script once, in a process of its own, and returns the JSON that it prints. */
  static JsonNode once(Path python, Path script, List<String> arguments) {
    List<String> command = new ArrayList<>(List.of(python.toString(), script.toString()));
    command.addAll(arguments);
    command.addAll(List.of("--threads", Integer.toString(Env.threads())));
    Path errors = null;
    try {
      errors = Files.createTempFile("deixis-peer", ".log");
      Process process = start(command, Map.of(), errors);
      process.getOutputStream().close();
      byte[] answer = process.getInputStream().readAllBytes();
      if (process.waitFor() != 0) {
        throw new InputException(script + " failed: " + lastWords(errors));
      }
      return JSON.readTree(answer);
    } catch (IOException e) {
      throw new InputException("cannot run " + python + ": " + e.getMessage(), e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new InputException("interrupted while " + script + " ran");
    } finally {
      delete(errors);
    }
  }

  /** Whether it still runs. */
  boolean alive() {
    return process.isAlive();
  }

  /** Names and versions of what the peer is made of. */
  JsonNode versions() {
    return versions;
  }

  /**
   * Has the peer build the work that {@code task} describes; empty if it has no twin of it.
   *
   * @param name what the contender's column is called
   */
  Optional<Work> prepare(String name, Map<String, ?> task) {
    int id = prepared++;
    ObjectNode request = JSON.createObjectNode().put("do", "prepare").put("id", id);
    request.set("task", JSON.valueToTree(task));
    return ask(request).path("twin").asBoolean(true)
        ? Optional.of(new Work(name, id))
        : Optional.empty();
  }

  /** Work that the peer holds ready until it is closed. */
  final class Work implements Contender, AutoCloseable {
    private final String name;
    private final int id;

    private Work(String name, int id) {
      this.name = name;
      this.id = id;
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public boolean compiles() {
      return compiles;
    }

    @Override
    public double seconds(int calls, boolean warm) {
      return ask(request("run").put("calls", calls).put("warm", warm)).get("seconds").asDouble();
    }

    /** Further figures of this work, for example peak memory; empty where there are none. */
    JsonNode facts() {
      return ask(request("facts"));
    }

    /** Whether the peer still runs. */
    boolean alive() {
      return PeerProcess.this.alive();
    }

    private ObjectNode request(String what) {
      return JSON.createObjectNode().put("do", what).put("id", id);
    }

    @Override
    public void close() {
      ask(request("drop"));
    }
  }

  private JsonNode ask(ObjectNode request) {
    try {
      to.write(JSON.writeValueAsString(request));
      to.write('\n');
      to.flush();
      String line = from.readLine();
      if (line == null) {
        throw new InputException(peer + " has ended: " + lastWords(errors));
      }
      JsonNode answer = JSON.readTree(line);
      if (answer.has("error")) {
        throw new InputException(peer + ": " + answer.get("error").asText());
      }
      return answer;
    } catch (IOException e) {
      throw new InputException(peer + " does not answer: " + lastWords(errors), e);
    }
  }

  private static String lastWords(Path log) {
    try {
      String text = Files.readString(log).strip().replaceAll("\\s*\\R\\s*", " | ");
      return text.isEmpty()
          ? "it says nothing"
          : text.substring(Math.max(0, text.length() - LAST_WORDS));
    } catch (IOException e) {
      return "its messages cannot be read: " + e.getMessage();
    }
  }

  private static void delete(Path file) {
    if (file != null) {
      try {
        Files.deleteIfExists(file);
      } catch (IOException e) {
        throw new InputException("cannot remove " + file + ": " + e.getMessage(), e);
      }
    }
  }

  @Override
  public void close() {
    try {
      to.close(); // the end of its input ends it
      if (!process.waitFor(20, TimeUnit.SECONDS)) {
        process.destroyForcibly();
      }
    } catch (IOException e) {
      process.destroyForcibly(); // it is gone already
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      process.destroyForcibly();
    }
    delete(errors);
  }
}
