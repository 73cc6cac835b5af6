package org.deixis.peers;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * The Java end of {@code deixis bench}: answers what {@code bench/peer_protocol.py} describes, line
 * by line, until the input ends.
 */
final class PeerProtocol {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final int LONGEST_ERROR = 500;

  /** A thing to be timed. */
  interface Work extends AutoCloseable {
    /** Does it once. */
    void call() throws Exception;

    /** Frees what it holds. */
    @Override
    void close();
  }

  /** Makes work of a task. */
  interface Maker {
    /** Null for a task that this peer has no twin of. */
    Work prepare(JsonNode task) throws Exception;
  }

  private PeerProtocol() {}

  /** The number after {@code --threads}. */
  static int threads(String[] arguments) {
    int at = List.of(arguments).indexOf("--threads");
    if (at < 0 || at + 1 == arguments.length) {
      throw new IllegalArgumentException("--threads is missing");
    }
    return Integer.parseInt(arguments[at + 1]);
  }

  /**
   * Answers until the input ends.
   *
   * @param versions names and versions, the answer to "hello"
   */
  static void serve(Map<String, String> versions, Maker maker) throws IOException {
    System.setOut(System.err); // whoever prints must not get between the lines
    Map<Integer, Work> works = new HashMap<>();
    try (Writer answers =
            new OutputStreamWriter(
                new FileOutputStream(FileDescriptor.out), StandardCharsets.UTF_8);
        BufferedReader requests =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
      for (String line = requests.readLine(); line != null; line = requests.readLine()) {
        Map<String, ?> answer;
        try {
          answer = answer(JSON.readTree(line), versions, maker, works);
        } catch (Exception e) { // reported to whoever asked, with the trace on stderr
          e.printStackTrace();
          String text = e.toString().strip().replaceAll("\\s+", " ");
          answer = Map.of("error", text.substring(0, Math.min(text.length(), LONGEST_ERROR)));
        }
        answers.write(JSON.writeValueAsString(answer) + "\n");
        answers.flush();
      }
    }
    works.values().forEach(Work::close);
  }

  private static Map<String, ?> answer(
      JsonNode request, Map<String, String> versions, Maker maker, Map<Integer, Work> works)
      throws Exception {
    int id = request.path("id").asInt();
    String what = request.path("do").asText();
    switch (what) {
      case "hello":
        return versions;
      case "prepare":
        Work made = maker.prepare(request.get("task"));
        if (made == null) {
          return Map.of("twin", false);
        }
        works.put(id, made);
        return Map.of();
      case "run":
        int calls = request.get("calls").asInt();
        return Map.of("seconds", seconds(works.get(id), calls, request.get("warm").asBoolean()));
      case "facts":
        return Map.of();
      case "drop":
        works.remove(id).close();
        return Map.of();
      default:
        throw new IllegalArgumentException("unknown request '" + what + "'");
    }
  }

  private static double seconds(Work work, int calls, boolean warm) throws Exception {
    if (warm) {
      work.call();
    }
    long start = System.nanoTime();
    for (int i = 0; i < calls; i++) {
      work.call();
    }
    return (System.nanoTime() - start) / 1e9 / calls;
  }
}
