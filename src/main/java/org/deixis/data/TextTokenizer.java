package org.deixis.data;

import ai.djl.huggingface.tokenizers.Encoding;
import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;
import org.deixis.core.AtomicWrite;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Phrases to token ids, by Hugging Face's tokenizers library. Loaded from a {@code tokenizer.json},
 * or from a BERT {@code vocab.txt}. May be used from any thread.
 */
public final class TextTokenizer implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(TextTokenizer.class);
  private static final ObjectMapper MAPPER = new ObjectMapper();
  private static final String JSON = "tokenizer.json";
  private static final String VOCAB = "vocab.txt";
  private static final long MAX_FILE = 1L << 27;
  private static final int MAX_PHRASE = 1_000_000;

  static {
    // Where a GPU is visible the library would fetch a CUDA flavour of itself over the network.
    setUnlessGiven("RUST_FLAVOR", "RUST_FLAVOR", "cpu");
    setUnlessGiven("DJL_OFFLINE", "ai.djl.offline", "true");
  }

  private final byte[] json;
  private final HuggingFaceTokenizer tokenizer;
  private final int padId;
  private final int vocabSize;
  private final AtomicBoolean warned = new AtomicBoolean();

  private TextTokenizer(byte[] json, String name) {
    this.json = json;
    JsonNode root;
    try {
      root = MAPPER.readTree(json);
    } catch (IOException e) {
      throw new InputException(
          name + ": tokenizer is cut off or malformed: " + Reason.oneLine(e.getMessage()), e);
    }
    int size = 0;
    Integer pad = null;
    JsonNode padding = root.path("padding").path("pad_id");
    if (padding.isInt()) {
      pad = padding.asInt();
    }
    for (JsonNode token : root.path("added_tokens")) {
      int id = token.path("id").asInt(-1);
      size = Math.max(size, id + 1);
      if (pad == null && isPad(token.path("content").asText(""))) {
        pad = id;
      }
    }
    JsonNode vocab = root.path("model").path("vocab");
    if (vocab.isArray()) {
      size = Math.max(size, vocab.size());
    }
    for (Map.Entry<String, JsonNode> token : vocab.properties()) {
      int id = token.getValue().asInt(-1);
      size = Math.max(size, id + 1);
      if (pad == null && isPad(token.getKey())) {
        pad = id;
      }
    }
    if (pad == null || size == 0) {
      throw new InputException(name + ": tokenizer has no padding token ([PAD] or <pad>)");
    }
    this.padId = pad;
    this.vocabSize = size;
    try {
      this.tokenizer =
          HuggingFaceTokenizer.newInstance(
              new ByteArrayInputStream(json),
              Map.of("truncation", "false", "padding", "false", "addSpecialTokens", "true"));
    } catch (IOException | RuntimeException e) {
      throw new InputException(
          name + ": not a usable tokenizer: " + Reason.oneLine(e.getMessage()), e);
    }
  }

  private static void setUnlessGiven(String variable, String property, String value) {
    if (System.getenv(variable) == null && System.getProperty(property) == null) {
      System.setProperty(property, value);
    }
  }

  private static boolean isPad(String token) {
    return token.equals("[PAD]") || token.equals("<pad>");
  }

  /**
   * Loads {@code tokenizer.json} or a BERT {@code vocab.txt}, given itself or by its folder. A
   * vocabulary without capitals is taken as an uncased one.
   *
   * @throws InputException when there is none or it is damaged
   */
  public static TextTokenizer load(Path fileOrDir) {
    Path file = fileOrDir;
    if (Files.isDirectory(fileOrDir)) {
      file = fileOrDir.resolve(JSON);
      if (!Files.exists(file)) {
        file = fileOrDir.resolve(VOCAB);
      }
    }
    if (!Files.isRegularFile(file)) {
      throw new InputException(
          fileOrDir + ": no tokenizer there; give a tokenizer.json, a vocab.txt or their folder");
    }
    try {
      if (Files.size(file) > MAX_FILE) {
        throw new InputException(file + ": over " + MAX_FILE + " bytes, too large for a tokenizer");
      }
      byte[] bytes = Files.readAllBytes(file);
      boolean vocab = file.getFileName().toString().endsWith(".txt");
      return new TextTokenizer(
          vocab ? TokenizerJson.ofBertVocabulary(bytes, file.toString()) : bytes, file.toString());
    } catch (IOException e) {
      throw new InputException(file + ": cannot be read: " + Reason.of(e), e);
    }
  }

  /** Whether a folder holds a tokenizer, usable or not. */
  static boolean isIn(Path dir) {
    return Files.exists(dir.resolve(JSON)) || Files.exists(dir.resolve(VOCAB));
  }

  /** A tokenizer from the content of a {@code tokenizer.json}. */
  public static TextTokenizer ofJson(byte[] json) {
    return new TextTokenizer(json.clone(), JSON);
  }

  /**
   * Token ids of a phrase, with the special tokens around it ({@code [CLS] ... [SEP]}). A phrase
   * that needs more than {@code maxTokens} is cut, keeping the special tokens; the first time a
   * warning is logged.
   *
   * @throws InputException when the phrase holds no word
   */
  public int[] encode(String phrase, int maxTokens) {
    if (phrase == null || phrase.isBlank()) {
      throw new InputException("empty phrase; say what to look for");
    }
    if (phrase.length() > MAX_PHRASE) {
      throw new InputException(
          "phrase of %d characters is over the limit of %d; shorten it"
              .formatted(phrase.length(), MAX_PHRASE));
    }
    Encoding encoding = tokenizer.encode(phrase);
    long[] ids = encoding.getIds();
    long[] special = encoding.getSpecialTokenMask();
    int leading = 0;
    while (leading < ids.length && special[leading] == 1) {
      leading++;
    }
    int trailing = 0;
    while (trailing < ids.length - leading && special[ids.length - 1 - trailing] == 1) {
      trailing++;
    }
    if (leading == ids.length) {
      throw new InputException(
          "phrase '" + phrase.strip() + "' holds no word; say what to look for");
    }
    if (maxTokens <= leading + trailing) {
      throw new InputException(
          "a limit of %d tokens leaves no room for words; at least %d are needed"
              .formatted(maxTokens, leading + trailing + 1));
    }
    int length = Math.min(ids.length, maxTokens);
    if (length < ids.length && !warned.getAndSet(true)) {
      LOG.warn(
          "phrase of {} tokens cut at the limit of {}: '{}...'",
          ids.length,
          maxTokens,
          phrase.strip().substring(0, Math.min(60, phrase.strip().length())));
    }
    int[] out = new int[length];
    for (int i = 0; i < length; i++) {
      int from = i < length - trailing ? i : ids.length - length + i;
      out[i] = (int) ids[from];
    }
    return out;
  }

  /** The id that fills a batch's shorter phrases. */
  public int padId() {
    return padId;
  }

  /** One more than the largest id: the rows that an embedding table needs. */
  public int vocabSize() {
    return vocabSize;
  }

  /** The content of a {@code tokenizer.json} that gives the same tokenizer. */
  public byte[] toJson() {
    return json.clone();
  }

  /**
   * Writes a {@code tokenizer.json}: to {@code path} itself, or into it if it is a folder.
   *
   * @throws InputException when the file cannot be written
   */
  public void save(Path path) {
    Path file = Files.isDirectory(path) ? path.resolve(JSON) : path;
    AtomicWrite.bytes(file, json);
  }

  @Override
  public void close() {
    tokenizer.close();
  }
}
